"""The collected runs as a table: in the terminal, as CSV, JSON, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from certtrain.report.collect import Collection, Group
from certtrain.report.collected_figure import write_figure
from certtrain.report.collected_latex import latex
from certtrain.report.collected_text import headline, notes, setting_cells, shared_lines, value_text
from certtrain.report.plain import write_texts
from certtrain.report.summary import finite
from certtrain.tables import print_whole, show

HEADINGS = ("seeds", "natural %", "certified % (union)", "certified % (its relaxation)", "training s")

# A setting's value that is longer than this is broken into lines in the terminal.
WIDEST = 24


def print_collection(console: Console, collection: Collection) -> None:
    """Prints what all settings share, one row per setting, and what the rows do not show."""
    for line in shared_lines(collection):
        console.print(printable(console, line), soft_wrap=True)
    table = Table(title=printable(console, headline(collection)), title_style="bold", title_justify="left")
    headings, rows = cells(collection)
    columns = len(collection.keys.columns)
    for i, heading in enumerate(headings):
        # Headings may wrap, values not, unless they are very long.
        longest = max(cell_len(row[i]) for row in rows)
        words = (re.sub(r"\.|(?<=\w)_(?=\w)", r"\g<0> ", heading) if i < columns else heading).split()
        width = max(min(longest, WIDEST) if i < columns else longest, *map(cell_len, words))
        justify: Any = "left" if i < columns else "right"
        text = printable(console, "\n".join(words))
        # A figure does not break before its deviation; where that leaves no room, the table is a list.
        figure = i >= columns
        table.add_column(text, justify=justify, min_width=width, max_width=width, overflow="fold", no_wrap=figure)
    for row in rows:
        table.add_row(*(printable(console, cell) for cell in row))
    if console.is_terminal:
        show(console, table)
    else:
        print_whole(console, table)
    for note in notes(collection):
        console.print(printable(console, note), soft_wrap=True)


def printable(console: Console, text: str) -> Text:
    """Text as it is, without markup and in characters that the terminal has."""
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(console.encoding, "backslashreplace").decode(console.encoding)
    return Text(text)


def write_collection(collection: Collection, directory: Path) -> list[Path]:
    """Writes collected.csv, .json, .md, .tex and .png into a directory, which is made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {"csv": _csv(collection), "json": _json(collection), "md": _markdown(collection), "tex": latex(collection)}
    written = write_texts(texts, directory, "collected")
    return [*written, write_figure(collection, directory / "collected.png")]


def cells(collection: Collection) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of text per setting."""
    columns = collection.keys.columns
    names = [key.removesuffix(".name") for key in columns]
    rows = [[*setting_cells(group.setting, columns), *_numbers(group)] for group in collection.groups]
    return [*names, *HEADINGS], rows


def _numbers(group: Group) -> list[str]:
    statistics = (group.natural, group.certified, group.own)
    seconds = "-" if group.train_seconds is None else f"{group.train_seconds:.1f}"
    return [str(len(group.seeds)), *(str(number) for number in statistics), seconds]


def _csv(collection: Collection) -> str:
    """Every key is a column here, shared ones last: so rows of several files can be put together."""
    rows = [_csv_row(collection, group) for group in collection.groups]
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in collection.keys.shared))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*columns, *collection.keys.shared], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(collection: Collection, group: Group) -> dict[str, Any]:
    keys = (*collection.keys.columns, *(key for c in collection.keys.companions for key in c.setting))
    row: dict[str, Any] = {key: value_text(group.setting[key]) if key in group.setting else "" for key in keys}
    row["seeds"] = len(group.seeds)
    numbers = {"natural": group.natural, "certified": group.certified, "own": group.own}
    numbers |= {f"certified_by_{name}": by.certified for name, by in group.by.items()}
    for name, number in numbers.items():
        row |= {f"{name}_{part}": getattr(number, part) for part in ("mean", "std", "decided", "images")}
    for name, by in group.by.items():
        row |= {f"certified_by_{name}_{part}": getattr(by, part) for part in ("judged", "failed", "skipped")}
    row["train_seconds"] = group.train_seconds
    return row | {key: value_text(value) for key, value in collection.keys.shared.items()}


def _json(collection: Collection) -> str:
    record = {**finite(asdict(collection)), "notes": notes(collection)}
    return json.dumps(record, indent=2, default=str, allow_nan=False) + "\n"


def _markdown(collection: Collection) -> str:
    headings, rows = cells(collection)
    table = [f"| {' | '.join(map(_escaped, line))} |" for line in (headings, *rows)]
    table.insert(1, "|" + " --- |" * len(headings))
    above = [f"- {_escaped(line.strip())}" for line in shared_lines(collection)]
    below = [f"- {_escaped(line)}" for line in notes(collection)]
    parts = [[headline(collection)], above, table, below]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _escaped(text: str) -> str:
    """On one line, in one cell, and with stars and the underscores of _target_ as they are."""
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("._", ".\\_")
