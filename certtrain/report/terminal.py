"""What people see in the terminal: progress of certification, and the verdict as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, fields
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from certtrain.report.rows import StageRow, failure_lines, result_rows, stage_rows, stages_heading, title, verifiers
from certtrain.tables import show

Report = Callable[[int, int, Mapping[str, int]], None]

# Characters of the bar.
BAR = 10
# Lines that a log gets between the first image and the last.
LINES = 10
STYLES = {"verified": "green", "falsified": "red", "oom": "magenta", "error": "magenta", "timeout": "yellow"}


def verdict_table(record: Mapping[str, Any]) -> Table:
    """The result of a run.

    Args:
        record: What stands in summary.json.
    """
    heading = f"{escape(title(record))}\n{escape(verifiers(record))}"
    table = Table(title=heading, title_style="bold", title_justify="left")
    table.add_column("what")
    for heading in ("%", "images", "judged", "failed", "skipped"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result_rows(record):
        if row.union:
            table.add_section()
        cells = (row.percent, row.images, row.judged, row.failed, row.skipped)
        table.add_row(Text(row.what), *cells, style="bold green" if row.union else None)
    return table


def stage_table(record: Mapping[str, Any]) -> Table | None:
    """What each stage settled; None for a record of before there were stages.

    Args:
        record: What stands in summary.json.
    """
    rows = stage_rows(record)
    if not rows:
        return None
    table = Table(title=stages_heading(record), title_style="bold", title_justify="left")
    for field in fields(StageRow):
        first = field.name == "stage"
        table.add_column(field.name, justify="left" if first else "right", no_wrap=not first, min_width=len(field.name))
    for row in rows:
        table.add_row(*map(Text, astuple(row)))
    return table


def print_verdict(console: Console, record: Mapping[str, Any]) -> None:
    """Prints the result, what each stage settled, the number of images with each status, and what failed."""
    show(console, verdict_table(record))
    if (stages := stage_table(record)) is not None:
        show(console, stages)
    counts = describe_counts(record.get("statuses") or {})
    if counts:
        console.print(counts, soft_wrap=True)
    for line in failure_lines(record):
        console.print(Text(line, style=STYLES["error"]), soft_wrap=True)


def describe_counts(counts: Mapping[str, int]) -> str:
    """Statuses that occur, as console markup."""
    found = ((count, status, STYLES.get(status)) for status, count in counts.items() if count)
    return ", ".join(
        f"[{style}]{count:,} {status}[/]" if style else f"{count:,} {status}" for count, status, style in found
    )


def _fitting(counts: Mapping[str, int], width: int) -> dict[str, int]:
    """As many of the statuses that occur as fit a line of this width, each of them whole."""
    found: dict[str, int] = {}
    for status, count in counts.items():
        longer = {**found, status: count}
        if len(Text.from_markup(describe_counts(longer))) > width:
            break
        found = longer
    return found


@contextmanager
def certification_progress(console: Console, total: int) -> Iterator[Report]:
    """Shows the progress of certification: a live bar in a terminal, a few lines elsewhere.

    Args:
        console: Where to.
        total: Number of images.

    Yields:
        What `certtrain.certify` takes for `progress`.
    """
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("certifying"),
        BarColumn(BAR),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    # What these take with the gaps between them; a remaining time is at most so long.
    room = console.width - len(f"certifying {'-' * BAR} {total}/{total} 00:00:00 ")
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total, counts="")

        def report(done: int, images: int, counts: Mapping[str, int]) -> None:
            bar.update(task, completed=done, total=images, counts=describe_counts(_fitting(counts, room)))

        yield report


class _Lines:
    """A line at the start, at every tenth of the images, and at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def __call__(self, done: int, total: int, counts: Mapping[str, int]) -> None:
        if done < self._next and done < total:
            return
        self._next = (int(done * LINES / total) + 1) * total / LINES if total else 0.0
        known = describe_counts(counts)
        self._console.print(
            f"judged {done:,} of {total:,} images" + (f": {known}" if known else ""),
            highlight=False,
            soft_wrap=True,
        )
