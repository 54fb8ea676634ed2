"""The collected runs as a table: in the terminal, as CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from certtrain.files import naming
from certtrain.report.collect import Collection, Group
from certtrain.report.collected_figure import write_figure

HEADINGS = ("seeds", "natural %", "certified % (union)", "certified % (its relaxation)", "training s")


def print_collection(console: Console, collection: Collection) -> None:
    """Prints one row per setting."""
    table = Table(title="mean ± standard deviation over seeds", title_style="bold", title_justify="left")
    headings, rows = cells(collection)
    for i, heading in enumerate(headings):
        # Headings may wrap, values not.
        width = max(len(row[i]) for row in rows)
        words = heading.replace(".", ". ").replace("_", "_ ").split() if i < len(collection.keys) else heading.split()
        width = max(width, *map(len, words))
        table.add_column("\n".join(words), justify="left" if i < len(collection.keys) else "right", min_width=width)
    for row in rows:
        table.add_row(*row)
    console.print(table, crop=False)
    for note in notes(collection):
        console.print(note, highlight=False)


def write_collection(collection: Collection, directory: Path) -> list[Path]:
    """Writes collected.csv, .json, .md and .png into a directory, which is made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {"csv": _csv(collection), "json": _json(collection), "md": _markdown(collection)}
    written = []
    for suffix, text in texts.items():
        path = directory / f"collected.{suffix}"
        with naming(path):
            path.write_text(text, encoding="utf-8")
        written.append(path)
    return [*written, write_figure(collection, directory / "collected.png")]


def cells(collection: Collection) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of text per setting."""
    names = [key.removesuffix(".name") for key in collection.keys]
    return [*names, *HEADINGS], [_row(collection.keys, group) for group in collection.groups]


def notes(collection: Collection) -> list[str]:
    """What the rows do not show."""
    found = []
    if collection.repeated:
        found.append(f"{collection.repeated} runs left out: a later one has the same setting and seed")
    if collection.unfinished:
        found.append(f"{collection.unfinished} run directories without a result")
    return found


def _row(keys: Sequence[str], group: Group) -> list[str]:
    values = [str(group.setting[key]) if key in group.setting else "-" for key in keys]
    numbers = (group.natural, group.certified, group.own)
    return [*values, str(len(group.seeds)), *(str(number) for number in numbers), f"{group.train_seconds:.1f}"]


def _csv(collection: Collection) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ("natural", "certified", "own")
    parts = [f"{name}_{part}" for name in numbers for part in ("mean", "std")]
    writer.writerow([*collection.keys, "seeds", *parts, "train_seconds"])
    for group in collection.groups:
        values = [getattr(getattr(group, name), part) for name in numbers for part in ("mean", "std")]
        setting = [group.setting.get(key) for key in collection.keys]
        writer.writerow([*setting, len(group.seeds), *values, group.train_seconds])
    return text.getvalue()


def _json(collection: Collection) -> str:
    return json.dumps(asdict(collection), indent=2, default=str) + "\n"


def _markdown(collection: Collection) -> str:
    headings, rows = cells(collection)
    lines = [headings, ["---"] * len(headings), *rows]
    table = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*table, "", *notes(collection)]).rstrip() + "\n"
