"""How plots look.

Matplotlib is imported when a plot is made: it takes half a second that most commands do not need.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.files import naming

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision can tell apart.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#D55E00", "#009E73", "#CC3311"
GREY, SILVER = "#555555", "#BBBBBB"
PURPLE, SKY, GOLD = "#CC79A7", "#56B4E9", "#E69F00"
# Of relaxations, so that each looks the same in all plots; others get the rest in turn.
RELAXATION_COLORS = {"ibp": BLUE, "hbox": GOLD, "zonotope": GREEN, "crown_ibp": PURPLE, "deeppoly": RED}
RELAXATION_MARKERS = {"ibp": "o", "hbox": "s", "zonotope": "^", "crown_ibp": "D", "deeppoly": "v"}
SETTINGS = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
}
DPI = 130
# Of the title, bold at its size: so many characters fit beside each other, and so much height takes a line.
CHARACTERS_PER_INCH = 10
LINE_INCHES = 0.2
# Percent that an axis of accuracies shows at least: a difference of one point is seen.
LEAST_POINTS = 4.0


@contextmanager
def drawing() -> Iterator[None]:
    """Everything that is drawn inside looks like this project's plots."""
    from matplotlib import rc_context

    with rc_context(SETTINGS):  # type: ignore[arg-type]
        yield


def figure(columns: int, rows: int, title: str, size: tuple[float, float], **options: Any) -> tuple[Figure, list[Any]]:
    """A figure of small plots, and the plots in reading order; use it inside `drawing`.

    Args:
        columns: Plots beside each other.
        rows: Plots below each other.
        title: Above everything.
        size: Width and height of each plot in inches.
        **options: Of `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    width = size[0] * columns
    lines = title_lines(title, width)
    height = size[1] * rows + 0.4 + LINE_INCHES * (len(lines) - 1)
    canvas = Figure(figsize=(width, height), layout="constrained")
    axes = canvas.subplots(rows, columns, squeeze=False, **options)
    canvas.suptitle("\n".join(lines), x=0.01, ha="left")
    return canvas, list(axes.flat)


def percent_limits(set_limits: Callable[[float, float], Any], values: Sequence[float]) -> None:
    """As much of an axis of percentages as its values need, and no less than `LEAST_POINTS`.

    Args:
        set_limits: `set_xlim` or `set_ylim`.
        values: In percent; what is not finite does not count.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return
    low, high = min(known), max(known)
    margin = max(0.06 * (high - low), (LEAST_POINTS - (high - low)) / 2, 0.3)
    set_limits(max(low - margin, -0.8), min(high + margin, 100.8))


def relaxation_color(name: str) -> str:
    """Of a relaxation's lines and bars."""
    return RELAXATION_COLORS.get(name, GREY)


def relaxation_marker(name: str) -> str:
    """Of a relaxation's points, for who does not see colours."""
    return RELAXATION_MARKERS.get(name, "X")


def save_both(canvas: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and as SVG; the path names the PNG."""
    return [save(canvas, path), save(canvas, path.with_suffix(".svg"))]


def title_lines(title: str, width: float) -> list[str]:
    """A title broken to fit a width in inches: one that is cut would lose the radius, which stands at its end."""
    return textwrap.wrap(title, int(CHARACTERS_PER_INCH * width)) or [title]


def save(canvas: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure, in the format that the file's name says, and returns the file."""
    # Ticks are made where they are drawn, and look like what is set then.
    with drawing(), naming(path):
        canvas.savefig(path, dpi=DPI, format=Path(path).suffix.removeprefix("."))
    return Path(path)
