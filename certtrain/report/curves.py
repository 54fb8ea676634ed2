"""curves.png: how training went, one small plot per kind of quantity."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.report.metrics import Series, read_metrics, running_mean
from certtrain.report.style import BLUE, GREEN, GREY, ORANGE, SILVER, drawing, figure, percent_limits, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With more points than this, a line of means over a fiftieth of them is drawn above the single ones.
DENSE = 120


@dataclass(frozen=True)
class Curve:
    """A logged quantity as it is drawn.

    Attributes:
        key: In metrics.jsonl.
        label: In the legend.
        color: Of its line.
        line: Matplotlib's line style.
        width: In points; a wide line shows behind another one that covers it.
    """

    key: str
    label: str
    color: str
    line: str = "-"
    width: float = 1.6


@dataclass(frozen=True)
class Panel:
    """One small plot.

    Attributes:
        title: What it shows.
        unit: Of its vertical axis.
        curves: What may be drawn in it.
        factor: From what is logged to the unit.
        logarithmic: Whether positive values over more than a factor of 30 get a logarithmic axis.
    """

    title: str
    unit: str
    curves: tuple[Curve, ...]
    factor: float = 1.0
    logarithmic: bool = False


PANELS = (
    Panel(
        "Loss",
        "loss",
        (
            Curve("train/loss", "training", SILVER, width=4.0),
            Curve("val/loss", "validation", GREEN, line="--"),
        ),
        logarithmic=True,
    ),
    Panel(
        "Accuracy",
        "% of validation images",
        (
            Curve("val/natural_accuracy", "natural", BLUE, line="--"),
            Curve("val/certified_accuracy", "certified", ORANGE),
        ),
        factor=100.0,
    ),
    Panel("Radius trained for", "eps (pixel units)", (Curve("eps", "eps", GREEN),)),
    Panel("Learning rate", "learning rate", (Curve("lr", "learning rate", GREEN),)),
    Panel("Gradient", "norm", (Curve("gradient_norm", "gradient norm", GREY),), logarithmic=True),
    Panel("Smoothing", "sigma of the weights' noise", (Curve("sigma", "sigma", GREEN),), logarithmic=True),
    Panel("Population", "std of members' losses", (Curve("population/std", "std", GREY),), logarithmic=True),
    Panel("Speed", "members per second", (Curve("members_per_second", "members/s", GREY),)),
)


def write_curves(metrics: str | os.PathLike[str], path: str | os.PathLike[str], title: str) -> Path | None:
    """Draws the training record.

    Args:
        metrics: metrics.jsonl.
        path: The PNG to write.
        title: Above everything.

    Returns:
        The PNG; None, and nothing is written, if nothing was logged that can be drawn.
    """
    canvas = draw_curves(read_metrics(metrics), title)
    return None if canvas is None else save(canvas, path)


def draw_curves(series: Mapping[str, Series], title: str) -> Figure | None:
    """A plot for every panel that has something to show; None if none has.

    Args:
        series: Key of metrics.jsonl -> what was logged.
        title: Above everything.
    """
    panels = [panel for panel in PANELS if any(drawable(series.get(curve.key)) for curve in panel.curves)]
    if not panels:
        return None
    columns = min(len(panels), 3)
    last = max(step for points in series.values() for step in points.steps)
    with drawing():
        canvas, axes = figure(columns, math.ceil(len(panels) / columns), title, size=(3.7, 2.7))
        for panel, ax in zip(panels, axes, strict=False):
            draw_panel(ax, panel, series)
            _set_steps(ax, last)
        for ax in axes[len(panels) :]:
            ax.remove()
    return canvas


def _set_steps(ax: Any, last: float) -> None:
    """The horizontal axis: whole steps, few enough that their numbers have room."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    margin = 0.02 * last or 1.0
    ax.set_xlim(-margin, last + margin)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def drawable(series: Series | None) -> bool:
    """Whether there is a number to draw."""
    return series is not None and any(not math.isnan(v) for v in series.values)


def draw_panel(ax: Any, panel: Panel, series: Mapping[str, Series]) -> None:
    """Draws what was logged of a panel's curves; at least one of them is there."""
    shown = [(curve, series[curve.key]) for curve in panel.curves if drawable(series.get(curve.key))]
    values: list[float] = []
    for curve, points in shown:
        scaled = [panel.factor * v for v in points.values]
        values += [v for v in scaled if not math.isnan(v)]
        _draw_line(ax, curve, points.steps, scaled)
    if panel.logarithmic and min(values) > 0 and max(values) > 30 * min(values):
        ax.set_yscale("log")
    elif panel.factor == 100.0:
        percent_limits(ax.set_ylim, values)
    elif min(values) >= 0:
        ax.set_ylim(0, 1.08 * max(values) or 1.0)
    ax.set_title(panel.title)
    ax.set_ylabel(panel.unit)
    ax.set_xlabel("optimizer step")
    if len(shown) > 1:
        ax.legend()


def _draw_line(ax: Any, curve: Curve, steps: tuple[float, ...], values: list[float]) -> None:
    # Not clipped: at the ends of its axis a line would lose half of its width.
    style: dict[str, Any] = {"color": curve.color, "linestyle": curve.line, "linewidth": curve.width, "clip_on": False}
    if len(steps) > DENSE and curve.key.startswith(("train/", "gradient", "population", "members")):
        ax.plot(steps, values, color=GREY, alpha=0.25, linewidth=0.7)
        ax.plot(steps, running_mean(values, len(steps) // 50), label=curve.label, **style)
    else:
        marker = "o" if len(steps) <= 30 else None
        ax.plot(steps, values, label=curve.label, marker=marker, markersize=max(3.0, curve.width + 1), **style)
