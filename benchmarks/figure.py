"""The results in one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bounds import BoundRow
from benchmarks.certify import SearchRow
from benchmarks.peak import OperationRow
from benchmarks.scaling import ScalingRow
from certtrain.report.style import BLUE, GREEN, GREY, LINE_INCHES, ORANGE, RED, drawing, save, title_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = (BLUE, ORANGE, GREEN, RED)
# Inches; at the style's resolution 1,690 pixels wide.
WIDTH, LINE, LEAST, PANEL = 13.0, 0.36, 6.0, 4.0
# Places of the panels that have something to show: the first ones in one column, the others beside them.
LEFT, RIGHT = ("bounds", "operations"), ("batches", "scaling", "certify")


def draw(results: Mapping[str, Sequence[Any]], title: str, path: Path) -> Path | None:
    """Writes the picture; None if there is nothing to draw."""
    canvas = picture(results, title)
    return None if canvas is None else save(canvas, path)


def picture(results: Mapping[str, Sequence[Any]], title: str) -> Figure | None:
    """A panel for everything that was measured; None if there is nothing to draw."""
    columns = [[name for name in names if results.get(name)] for names in (LEFT, RIGHT)]
    columns = [names for names in columns if names]
    if not columns:
        return None
    with drawing():
        from matplotlib.figure import Figure

        lines = sum(len(results.get(name, ())) for name in LEFT)
        heading = title_lines(title, WIDTH)
        beside = sum(bool(results.get(name)) for name in RIGHT)
        height = max(LEAST, PANEL * beside, 1.5 + LINE / 1.6 * lines) + LINE_INCHES * (len(heading) - 1)
        canvas = Figure(figsize=(WIDTH, height), layout="constrained")
        canvas.suptitle("\n".join(heading), x=0.01, ha="left")
        for part, names in zip(canvas.subfigures(1, len(columns), squeeze=False)[0], columns, strict=True):
            heights = [max(4, len(results[name])) if names[0] in LEFT else 1 for name in names]
            axes = part.subplots(len(names), squeeze=False, height_ratios=heights)[:, 0]
            for name, ax in zip(names, axes, strict=True):
                PANELS[name](ax, results[name])
    return canvas


def _bounds(ax: Any, rows: Sequence[BoundRow]) -> None:
    """Bars per network, weights and method; one without and one with gradients."""
    labels = list(dict.fromkeys(_label(row) for row in rows))
    for grad, color, shift in ((False, BLUE, -0.2), (True, ORANGE, 0.2)):
        own = [row for row in rows if row.grad == grad]
        places = [labels.index(_label(row)) + shift for row in own]
        ratios = [row.times.ratio for row in own]
        medians = [r.median for r in ratios]
        spread = [[r.median - r.lower_quartile for r in ratios], [r.upper_quartile - r.median for r in ratios]]
        # Bars grow out of the line where both take equally long.
        bars = {"left": 1.0, "height": 0.38, "xerr": spread, "error_kw": {"ecolor": GREY, "lw": 0.8}}
        name = "with gradients" if grad else "bounds alone"
        ax.barh(places, [m - 1 for m in medians], color=color, label=name, **bars)
        for place, ratio in zip(places, ratios, strict=True):
            ends = (ratio.upper_quartile, "left", 3) if ratio.median >= 1 else (ratio.lower_quartile, "right", -3)
            text = {"xytext": (ends[2], 0), "textcoords": "offset points", "va": "center", "ha": ends[1]}
            ax.annotate(_ratio(ratio.median), (ends[0], place), fontsize=7, color=GREY, **text)
    ax.axvline(1, color=GREY, lw=1)
    ax.set(xscale="log", yticks=range(len(labels)), yticklabels=labels, xlabel="auto_LiRPA's time / native time")
    ax.set_title("Bounds: ratios")
    low, high = ax.get_xlim()
    # Room for the numbers.
    ax.set_xlim(min(0.75 * low, 0.7), max(1.5 * high, 2))
    ax.grid(axis="y", visible=False)
    ax.invert_yaxis()
    # Beside the title: anywhere inside, some bars would lie below it.
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2)
    _plain(ax.xaxis)


def _ratio(value: float) -> str:
    """Two digits, or whole: 0.31, 4.2, 640."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _label(row: BoundRow | OperationRow) -> str:
    return f"{row.network}/{row.batch} {row.weights}: {row.method}"


def _operations(ax: Any, rows: Sequence[OperationRow]) -> None:
    """Share of the machine's best matrix product."""
    ax.barh([_label(row) for row in rows], [100 * row.share for row in rows], color=GREEN, height=0.6)
    ax.set(xlabel="% of the machine's best matrix product", title="Products of the native bounds per second")
    ax.grid(axis="y", visible=False)
    ax.invert_yaxis()


def _batches(ax: Any, rows: Sequence[BoundRow]) -> None:
    """Ratio against batch."""
    lines: dict[tuple[str, bool], list[BoundRow]] = {}
    for row in rows:
        lines.setdefault((row.method, row.grad), []).append(row)
    for ((method, grad), own), color in zip(lines.items(), COLORS, strict=False):
        ratios, batches = [row.times.ratio for row in own], [row.batch for row in own]
        name = f"{method}, with gradients" if grad else method
        ax.plot(batches, [r.median for r in ratios], "o--" if grad else "o-", ms=4, color=color, label=name)
        low, high = [r.lower_quartile for r in ratios], [r.upper_quartile for r in ratios]
        ax.fill_between(batches, low, high, color=color, alpha=0.15, lw=0)
    ax.axhline(1, color=GREY, lw=1)
    ax.set(xscale="log", yscale="log", xlabel="batch", ylabel="auto_LiRPA's time / native time")
    ax.set_title(f"{rows[0].network}: how many times faster at every batch")
    ax.legend()
    _plain(ax.xaxis, sorted({row.batch for row in rows}))
    _plain(ax.yaxis)


def _scaling(ax: Any, rows: Sequence[ScalingRow]) -> None:
    """Times relative to the smallest value's, so that the axes share one plot."""
    for row, color in zip(rows, COLORS, strict=False):
        start = row.times[0].median
        values = [value / row.values[0] for value in row.values]
        name = f"{row.axis} from {row.values[0]} to {row.values[-1]}: exponent {row.exponent:.2f}"
        ax.plot(values, [t.median / start for t in row.times], "o-", ms=4, color=color, label=name)
    ax.set(xscale="log", yscale="log", xlabel="times the smallest value", ylabel="times its time")
    ax.set_title("Native deeppoly: growth of time")
    ax.legend()
    _plain(ax.xaxis)
    _plain(ax.yaxis)


def _certify(ax: Any, rows: Sequence[SearchRow]) -> None:
    """Steps: the share of a network's properties that had been settled after so many seconds each."""
    networks = list(dict.fromkeys(row.network for row in rows))
    for row in rows:
        shares = [(k + 1) / row.instances for k in range(len(row.settled))]
        radii = sorted({other.eps for other in rows if other.network == row.network})
        style = ("-", "--", ":", "-.")[radii.index(row.eps) % 4]
        color = COLORS[networks.index(row.network) % len(COLORS)]
        name = f"{row.network}, eps {row.eps:g}: {len(row.settled)} of {row.instances}"
        times, heights = [*row.settled, row.limit], [*shares, shares[-1] if shares else 0.0]
        ax.step(times, heights, style, where="post", color=color, label=name)
    ax.set(xscale="log", ylim=(0, 1.02), xlabel="seconds for one property", ylabel="share settled")
    ax.set_title("Attack, then branch and bound: settled over time")
    ax.legend()
    _plain(ax.xaxis, (0.01, 0.1, 1, 10, 100))


def _plain(axis: Any, ticks: Iterable[float] | None = None) -> None:
    """Ticks such as 0.5, 2 and 10 instead of powers of ten."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if ticks is None else FixedLocator(list(ticks)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


PANELS: Mapping[str, Callable[[Any, Sequence[Any]], None]] = {
    "bounds": _bounds,
    "operations": _operations,
    "batches": _batches,
    "scaling": _scaling,
    "certify": _certify,
}
