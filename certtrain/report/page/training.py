"""Training curves: of one run as they were logged, of many settings as means with bands over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from markupsafe import Markup

from certtrain.report.curves import PANELS, Curve, Panel, draw_panel, drawable
from certtrain.report.metrics import Series
from certtrain.report.page.charts import Line, lines
from certtrain.report.page.entries import Entry
from certtrain.report.page.svg import inline

# Points of a line; more are averaged to so many.
POINTS = 120
# Quantities that a page of many settings shows at once.
CERTIFIED, RELAXATION = "val/certified_accuracy", "relaxation.name"
FIRST = (CERTIFIED, "val/natural_accuracy", "train/loss")


def run_charts(series: Mapping[str, Series]) -> list[Markup]:
    """A chart for each panel that has something to show."""
    thin = {key: thinned(found) for key, found in series.items()}
    shown = [panel for panel in PANELS if any(drawable(thin.get(curve.key)) for curve in panel.curves)]
    return [inline(_drawing(panel, thin), f"{panel.title} over optimizer steps") for panel in shown]


def _drawing(panel: Panel, series: Mapping[str, Series]) -> Callable[[Any], None]:
    return lambda ax: draw_panel(ax, panel, series)


def study_charts(entries: Sequence[Entry]) -> tuple[list[Markup], list[Markup]]:
    """A chart for each quantity that was logged: a line per setting, a band from the least to the greatest seed.

    Validation images are certified by the relaxation that trains: each has a chart of its own.

    Returns:
        What training is about, `FIRST`; and the rest.
    """
    found: dict[str, list[Markup]] = {}
    for panel in PANELS:
        for curve in panel.curves:
            title, percent = _title(panel, curve), panel.factor == 100.0
            for name, members in _comparable(entries, curve).items():
                drawn = [line for entry in members if (line := _line(entry, curve, panel.factor)) is not None]
                if drawn:
                    by = f"{title} by {name} (%)" if name else title + (" (%)" if percent else "")
                    found.setdefault(curve.key, []).append(lines(drawn, by, "optimizer step", percent=percent))
    first = [chart for key in FIRST for chart in found.pop(key, [])]
    return first, [chart for charts in found.values() for chart in charts]


def _comparable(entries: Sequence[Entry], curve: Curve) -> dict[str, list[Entry]]:
    """Settings that may share a chart, by what certified them; "" where nothing did."""
    if curve.key != CERTIFIED:
        return {"": list(entries)}
    together: dict[str, list[Entry]] = {}
    for entry in entries:
        together.setdefault(str(entry.group.setting.get(RELAXATION, "unknown")), []).append(entry)
    return together


def _title(panel: Panel, curve: Curve) -> str:
    if panel.factor == 100.0:
        return f"Validation: {curve.label}"
    return panel.title if len(panel.curves) == 1 else f"{curve.label.capitalize()} {panel.title.lower()}"


def _line(entry: Entry, curve: Curve, factor: float) -> Line | None:
    """The mean over the seeds that have a number at a step."""
    seeds = [thinned(run.series[curve.key]) for run in entry.runs if drawable(run.series.get(curve.key))]
    if not seeds:
        return None
    at: dict[float, list[float]] = {}
    for found in seeds:
        for step, value in zip(found.steps, found.values, strict=True):
            if not math.isnan(value):
                at.setdefault(step, []).append(factor * value)
    # Where some seeds stopped early, the others alone would be another mean.
    steps = sorted(step for step, values in at.items() if len(values) == len(seeds)) or sorted(at)
    values = [at[step] for step in steps]
    center = tuple(map(mean, values))
    if len(seeds) == 1:
        return Line(entry.look, tuple(steps), center)
    return Line(entry.look, tuple(steps), center, tuple(map(min, values)), tuple(map(max, values)))


def thinned(found: Series, points: int = POINTS) -> Series:
    """At most so many points, each the mean of neighbours at their last step; NaNs are left out of means."""
    if len(found.steps) <= points:
        return found
    width = math.ceil(len(found.steps) / points)
    steps, values = [], []
    for start in range(0, len(found.steps), width):
        known = [value for value in found.values[start : start + width] if not math.isnan(value)]
        steps.append(found.steps[min(start + width, len(found.steps)) - 1])
        values.append(mean(known) if known else math.nan)
    return Series(tuple(steps), tuple(values))
