"""landscape/: the certified loss around the weights of a run, as numbers and as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.report.plain import numbers, plain, write_record
from certtrain.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SILVER, drawing, figure, save_both

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

# Of no smoothing, and of the sigmas in turn.
COLORS = (GREY, BLUE, ORANGE, GREEN, PURPLE, SILVER)
DASHES = ("-", "-", "--", "-.", ":", "-")


def write_landscape(record: Record, folder: Path) -> list[Path]:
    """Writes landscape.json, and lines and plane as PNG and SVG; returns the files.

    Args:
        record: What `landscape` has evaluated.
        folder: Where to; is made.
    """
    kept = plain(record)
    written = [write_record(record, folder / "landscape.json")]
    for name, canvas in (("lines", draw_lines(kept)), ("plane", draw_plane(kept))):
        written += save_both(canvas, folder / f"{name}.png")
    return written


def draw_lines(record: Record) -> Figure:
    """A row per relaxation, a column per direction; bands are two standard errors to each side."""
    lines, names = record["lines"], list(record["relaxations"])
    with drawing():
        title = f"{_title(record)}; bands: ± 2 standard errors of {record['pairs']} pairs"
        canvas, axes = figure(len(lines), len(names), title, size=(4.4, 2.0), sharex="col")
        for row, name in enumerate(names):
            for column, line in enumerate(lines):
                ax = axes[row * len(lines) + column]
                draw_line(ax, numbers(line["positions"]), line["losses"][name])
                ax.set_title(f"{name}: {line['direction']}")
                if row == len(names) - 1:
                    ax.set_xlabel("step along the direction (units of ‖θ‖)")
                if column == 0:
                    ax.set_ylabel("certified loss")
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return canvas


def draw_line(ax: Any, positions: Sequence[float], curves: Sequence[Record]) -> None:
    """Draws the losses along one direction, unsmoothed and smoothed.

    Args:
        ax: Where to.
        positions: Steps along the direction.
        curves: Of one relaxation.
    """
    shown: list[float] = []
    for color, dash, curve in zip(COLORS, DASHES, curves, strict=False):
        mean, error = numbers(curve["mean"]), numbers(curve["error"])
        # The unsmoothed one lies behind, wide enough to be seen under the others.
        style = {"linewidth": 1.3 if curve["sigma"] else 3.0, "linestyle": dash}
        ax.plot(positions, mean, color=color, label=smoothing(curve["sigma"]), **style)
        if curve["sigma"]:
            low, high = ([m + sign * e for m, e in zip(mean, error, strict=True)] for sign in (-2, 2))
            ax.fill_between(positions, low, high, color=color, alpha=0.2, linewidth=0)
        shown += [m for m in mean if m == m]
    ax.axvline(0, color=SILVER, linewidth=0.8)
    if shown and min(shown) > 0 and max(shown) > 30 * min(shown):
        ax.set_yscale("log")


def draw_plane(record: Record) -> Figure:
    """A row per relaxation, a column per smoothing; colours are shared within a row."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import NullFormatter

    plane = record["plane"]
    up, across = map(numbers, plane["positions"])
    names = list(record["relaxations"])
    columns = len(plane["losses"][names[0]])
    with drawing():
        canvas, axes = figure(columns, len(names), f"{_title(record)}; colour: certified loss", size=(2.5, 2.1))
        for row, name in enumerate(names):
            curves = plane["losses"][name]
            every = [v for curve in curves for v in numbers(curve["mean"]) if v == v]
            low, high = min(every, default=0.0), max(every, default=1.0)
            norm = LogNorm(low, high) if 0 < low < high / 30 else Normalize(low, high)
            own = axes[row * columns : (row + 1) * columns]
            for ax, curve in zip(own, curves, strict=True):
                values = numbers(curve["mean"])
                rows = [values[i : i + len(across)] for i in range(0, len(values), len(across))]
                mesh = ax.pcolormesh(across, up, rows, norm=norm, cmap="viridis", shading="nearest")
                mesh.set_rasterized(True)
                ax.plot([0], [0], marker="+", color="white", markersize=7)
                ax.grid(False)
                ax.set_title(f"{name}, {smoothing(curve['sigma'])}", fontsize=8)
                if row == len(names) - 1:
                    ax.set_xlabel("random")
            own[0].set_ylabel("gradient")
            bar = canvas.colorbar(mesh, ax=list(own), pad=0.01)
            bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return canvas


def smoothing(relative: float) -> str:
    """How a loss is smoothed, in words; sigma is relative to the weights."""
    return f"σ√d/‖θ‖ = {relative:g}" if relative else "as it is"


def _title(record: Record) -> str:
    return (
        f"Certified loss around weights trained with {record['trained_with']}, {record['method']}: "
        f"{record['images']} {record['split']} images of {record['data']}, eps {record['eps']:g}"
    )
