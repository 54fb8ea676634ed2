"""The picture of a search: two objectives against each other, or one over its trials."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.report.style import BLUE, GREY, ORANGE, SILVER, drawing, figure, save_both
from certtrain.tuning.results import Results, Row
from certtrain.tuning.settings import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "front.png"


def draw(results: Results) -> list[Path]:
    """Draws front.png and front.svg into the directory of the search; nothing before the first result.

    Args:
        results: What it has found.
    """
    rows = results.rows()
    done = [row for row in rows if row.state == "complete"]
    if not done:
        return []
    objectives = results.settings.objectives
    pairs = list(combinations(objectives, 2))
    searched = ", ".join(parameter.key for parameter in results.space.parameters)
    with drawing():
        canvas, axes = figure(max(1, len(pairs)), 1, f"Search over {searched}: {len(rows)} trials", (5.0, 3.6))
        if pairs:
            for plot, (across, up) in zip(axes, pairs, strict=True):
                _pair(plot, done, across, up, joined=len(objectives) == 2)
        else:
            _history(axes[0], rows, objectives[0])
    return save_both(canvas, results.directory / NAME)


def _pair(plot: Axes, done: Sequence[Row], across: Objective, up: Objective, joined: bool) -> None:
    """One objective against another; the front as a line where there are no others."""

    def points(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
        return [_value(row, across) for row in rows], [_value(row, up) for row in rows]

    best = sorted((row for row in done if row.best), key=lambda row: _value(row, across))
    kept = [row for row in done if not row.best and row.feasible]
    broken = [row for row in done if not row.feasible]
    plot.scatter(*points(kept), color=SILVER, s=22, label="other trials")
    if broken:
        plot.scatter(*points(broken), color=SILVER, marker="x", s=22, label="breaks a constraint")
    if joined and best:
        # Between two of its points the front is not known: a staircase promises nothing.
        plot.plot(*points(best), color=BLUE, linewidth=1.2, drawstyle=_stairs(across), zorder=2)
    plot.scatter(*points(best), color=BLUE, s=32, zorder=3, label="Pareto front")
    for row in best:
        place = (_value(row, across), _value(row, up))
        plot.annotate(str(row.number), place, xytext=(4, 4), textcoords="offset points", fontsize=7)
    plot.set_xlabel(_label(across))
    plot.set_ylabel(_label(up))
    plot.legend(loc="best")


def _history(plot: Axes, rows: Sequence[Row], objective: Objective) -> None:
    """One objective over the trials, and the best so far; pruned ones by what they reached."""
    done = [row for row in rows if row.state == "complete"]
    kept = [row for row in done if row.feasible]
    groups: list[tuple[list[Row], dict[str, Any]]] = [
        (kept, {"color": GREY, "label": "complete"}),
        ([row for row in done if not row.feasible], {"color": SILVER, "marker": "x", "label": "breaks a constraint"}),
    ]
    for group, options in groups:
        if group:
            plot.scatter([row.number for row in group], [_value(row, objective) for row in group], s=22, **options)
    pruned = [row for row in rows if row.state == "pruned" and row.reports]
    if pruned:
        reached = [_percent(objective, row.reports[max(row.reports)]) for row in pruned]
        plot.scatter([row.number for row in pruned], reached, marker="v", color=ORANGE, s=22, label="pruned then")
    better = max if objective.direction == "maximize" else min
    numbers, best = list[int](), list[float]()
    for row in kept:
        value = _value(row, objective)
        numbers.append(row.number)
        best.append(better(best[-1], value) if best else value)
    if kept:
        plot.step(numbers, best, where="post", color=BLUE, label="best so far")
    plot.set_xlabel("trial")
    plot.set_ylabel(_label(objective))
    plot.locator_params(axis="x", integer=True)
    plot.legend(loc="best")


def _stairs(across: Objective) -> str:
    return "steps-pre" if across.direction == "maximize" else "steps-post"


def _value(row: Row, objective: Objective) -> float:
    return _percent(objective, row.figures[objective.key])


def _percent(objective: Objective, value: float) -> float:
    return 100 * value if objective.key.endswith("accuracy") else value


def _label(objective: Objective) -> str:
    unit = " (%)" if objective.key.endswith("accuracy") else ""
    better = "more is better" if objective.direction == "maximize" else "less is better"
    return f"{objective.key}{unit}, {better}"
