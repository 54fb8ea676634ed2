"""How numbers look in tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.markup import escape
from rich.table import Table

from benchmarks.timing import Comparison, Spread

# The columns of a comparison.
COMPARISON = ("native ms", "auto_LiRPA ms", "ratio")


def make_table(title: str, left: Sequence[str], right: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table whose first columns are words and whose other columns are numbers."""
    table = Table(title=escape(title), title_style="bold", title_justify="left")
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def comparison(found: Comparison) -> tuple[str, str, str]:
    """Cells below COMPARISON."""
    return milliseconds(found.native), milliseconds(found.auto_lirpa), ratio(found.ratio)


def milliseconds(spread: Spread) -> str:
    """Median and quartiles of seconds."""
    return _with_quartiles(*(number(1000 * s) for s in (spread.median, spread.lower_quartile, spread.upper_quartile)))


def ratio(spread: Spread) -> str:
    """Median and quartiles, red where native is slower."""
    cells = (f"{r:.2f}" for r in (spread.median, spread.lower_quartile, spread.upper_quartile))
    return colored(_with_quartiles(*cells), spread.median)


def colored(text: str, factor: float) -> str:
    """Green where native is at least as good."""
    return f"[{'green' if factor >= 1 else 'red'}]{text}[/]"


def number(value: float) -> str:
    """Three digits, thousands separated."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _with_quartiles(median: str, low: str, high: str) -> str:
    return escape(f"{median} [{low}, {high}]")
