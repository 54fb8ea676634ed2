"""Tables in a terminal of any width: one that does not fit is a list, in which no figure is cut or broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

# Wider than any table.
UNBOUNDED = 10_000
INDENT, GAP = "  ", "  "


def show(console: Console, table: Table) -> None:
    """Prints a table; where it is wider than the console, each row is its first cell and, below, the others by name.

    Args:
        console: Where to.
        table: Its headings name the cells, of which the first one names the row. Columns may break between words,
            unless they are `no_wrap`.
    """
    natural = Measurement.get(console, console.options.update(max_width=UNBOUNDED), table).maximum
    widths = [_widths(column) for column in table.columns]
    room = console.width - natural + sum(widest - least for widest, least in widths)
    if room < 0:
        for line in as_list(table, console.width):
            console.print(line, highlight=False, soft_wrap=True)
        return
    # By itself rich breaks words of one column to make room for another.
    for column, (widest, least) in zip(table.columns, widths, strict=True):
        column.width = min(widest, least + room)
        room -= column.width - least
    console.print(table)


def print_whole(console: Console, table: Table) -> None:
    """Prints a table for a file or a pipe, as wide as it has to be: rich would cut columns, some to nothing.

    Args:
        console: Where to.
        table: Of any width.
    """
    natural = Measurement.get(console, console.options.update(max_width=UNBOUNDED), table).maximum
    Console(file=console.file, width=max(natural, console.width), color_system=None).print(table)


def _widths(column: Column) -> tuple[int, int]:
    """Characters of the widest line of a column, and those that it takes at least."""
    lines = [line for cell in (column.header, *column.cells) for line in _text(cell).plain.splitlines()]
    words = [word for line in lines for word in line.split()]
    widest = max(map(cell_len, lines), default=0)
    return widest, widest if column.no_wrap else max(map(cell_len, words), default=0)


def as_list(table: Table, width: int) -> Iterator[Text]:
    """The lines that stand for a table which is wider than `width` characters."""
    for text, style in ((table.title, "bold"), (table.caption, "dim")):
        if text is not None:
            yield text if isinstance(text, Text) else Text(str(text), style)
    headings = [" ".join(_text(column.header).plain.split()) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        first, *others = map(_text, cells)
        first.stylize("bold")
        yield first
        named = [(heading, cell) for heading, cell in zip(headings[1:], others, strict=True) if cell.plain.strip()]
        for row in _rows([Text.assemble((f"{heading} ", "dim"), cell) for heading, cell in named], width):
            yield Text(INDENT) + Text(GAP).join(row)


def _rows(parts: Sequence[Text], width: int) -> Iterator[list[Text]]:
    """Parts that stand beside each other, each of them whole."""
    row: list[Text] = []
    for part in parts:
        if row and len(INDENT) + sum(len(p) + len(GAP) for p in row) + len(part) > width:
            yield row
            row = []
        row.append(part)
    if row:
        yield row


def _text(cell: object) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text.from_markup(str(cell))
