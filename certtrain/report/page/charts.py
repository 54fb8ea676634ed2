"""Charts of many settings: accuracies against each other, over eps, and against what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from markupsafe import Markup

from certtrain.report.page.look import Look
from certtrain.report.page.published import Published
from certtrain.report.page.svg import INK, inline
from certtrain.report.style import GREY, percent_limits

Member = TypeVar("Member")
WIDE = (4.5, 3.4)
# Part of the width that is left for letters at the ends of lines, and how these are set.
ENDS = 0.05
BESIDE: Mapping[str, Any] = {"textcoords": "offset points", "fontsize": 8, "va": "center", "annotation_clip": False}
# Points from a marker to its letter; the first is taken where there is room enough.
SIDES = ((7.0, 7.0), (-7.0, 7.0), (7.0, -7.0), (-7.0, -7.0), (0.0, 10.0), (0.0, -10.0))


@dataclass(frozen=True)
class Spot:
    """A setting as a point.

    Attributes:
        look: Of it.
        x: Horizontal.
        y: Vertical.
        dx: Standard deviation over seeds; 0 for one seed.
        dy: Likewise.
    """

    look: Look
    x: float
    y: float
    dx: float = 0.0
    dy: float = 0.0


@dataclass(frozen=True)
class Line:
    """A setting as a line with a band.

    Attributes:
        look: Of it.
        x: Ascending.
        y: As many; NaN where there is no number.
        low: Lower ends of the band.
        high: Upper ends.
    """

    look: Look
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def pareto(spots: Sequence[Spot], published: Sequence[Published], what: str) -> Markup:
    """Certified over natural accuracy in percent, with the front of those that no other one beats in both.

    Args:
        spots: Of settings that the same verifiers judged on the same images.
        published: Figures of others at the same data set and radius.
        what: Says who certified.
    """

    def draw(ax: Any) -> None:
        front = sorted((s for s in spots if not any(_beats(other, s) for other in spots)), key=lambda s: s.x)
        if len(front) > 1:
            ax.step([s.x for s in front], [s.y for s in front], where="pre", color=GREY, linewidth=0.9, zorder=1)
        for spot in spots:
            style = {"color": spot.look.color, "marker": spot.look.marker, "markersize": 6, "elinewidth": 0.8}
            ax.errorbar(spot.x, spot.y, xerr=spot.dx or None, yerr=spot.dy or None, linestyle="none", **style)
        known = [one for one in published if one.natural is not None and one.certified is not None]
        for number, one in enumerate(known, 1):
            ax.plot(one.natural, one.certified, marker="*", markersize=9, color=INK, markerfacecolor="none")
            ax.annotate(str(number), (one.natural, one.certified), (5, -9), textcoords="offset points", fontsize=8)
        both = [*((s.x - s.dx, s.y - s.dy) for s in spots), *((s.x + s.dx, s.y + s.dy) for s in spots)]
        both += [(one.natural or 0.0, one.certified) for one in known]
        percent_limits(ax.set_xlim, [x for x, _ in both])
        percent_limits(ax.set_ylim, [y for _, y in both])
        ax.set_xlabel("natural accuracy (% of test images)")
        ax.set_ylabel("certified (%)")
        _letters(ax, [(s.look.letter, s.x, s.y) for s in spots])

    return inline(draw, f"Certified over natural accuracy, {what}", WIDE)


def cost(spots: Sequence[Spot], unit: str, what: str) -> Markup:
    """Certified accuracy in percent over a cost."""

    def draw(ax: Any) -> None:
        for spot in spots:
            style = {"color": spot.look.color, "marker": spot.look.marker, "markersize": 6, "elinewidth": 0.8}
            ax.errorbar(spot.x, spot.y, yerr=spot.dy or None, linestyle="none", **style)
        values = [s.x for s in spots]
        if min(values) > 0 and max(values) > 4 * min(values):
            ax.set_xscale("log")
            plain_ticks(ax, min(values), max(values))
        percent_limits(ax.set_ylim, [v for s in spots for v in (s.y - s.dy, s.y + s.dy)])
        ax.set_xlabel(unit)
        ax.set_ylabel("certified (%)")
        _letters(ax, [(s.look.letter, s.x, s.y) for s in spots])

    return inline(draw, f"Certified accuracy over {unit}, {what}")


def lines(
    found: Sequence[Line], title: str, xlabel: str, percent: bool, size: tuple[float, float] | None = None
) -> Markup:
    """Lines with bands, a letter at the end of each.

    Args:
        found: At least one.
        title: Of the chart.
        xlabel: Of the horizontal axis.
        percent: Whether values are percentages: their axis never shows less than 0 or more than 100.
        size: In inches.
    """

    def draw(ax: Any) -> None:
        for line in found:
            if line.low:
                ax.fill_between(line.x, line.low, line.high, color=line.look.color, alpha=0.16, linewidth=0)
            marker = line.look.marker if len(line.x) <= 12 else None
            ax.plot(line.x, line.y, linewidth=1.4, marker=marker, markersize=3.5, **line.look.line)
        values = [v for line in found for v in (*line.y, *line.low, *line.high) if math.isfinite(v)]
        if percent:
            percent_limits(ax.set_ylim, [v for line in found for v in _told(line)])
        elif values and min(values) > 0 and max(values) > 30 * min(values):
            ax.set_yscale("log")
            plain_ticks(ax, min(values), max(values), vertical=True)
        ax.set_title(title)
        ax.set_xlabel(xlabel)
        _ends(ax, found)

    return inline(draw, f"{title} over {xlabel}", size or (3.7, 2.7))


def _told(line: Line) -> tuple[float, ...]:
    """What the vertical axis has to show: all of a short line, of a long one what follows its steep beginning."""
    start = len(line.y) // 4 if len(line.y) > 8 else 0
    return (*line.y[start:], *line.low[start:], *line.high[start:])


def plain_ticks(ax: Any, low: float, high: float, vertical: bool = False) -> None:
    """A logarithmic axis in plain numbers, two or three to a factor of ten where it spans few of these."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = ax.yaxis if vertical else ax.xaxis
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if decades < 2.2 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _beats(one: Spot, other: Spot) -> bool:
    return one.x >= other.x and one.y >= other.y and (one.x, one.y) != (other.x, other.y)


def _settle(ax: Any) -> None:
    """Lays out what is drawn so far, for good: places of data in points are known then."""
    ax.figure.draw_without_rendering()
    ax.figure.set_layout_engine("none")


def _letters(ax: Any, spots: Sequence[tuple[str, float, float]]) -> None:
    """A letter beside each point, on the side where the others leave most room."""
    _settle(ax)
    scale = 72 / ax.figure.dpi
    points = [tuple(scale * ax.transData.transform((x, y))) for _, x, y in spots]
    taken: list[tuple[float, float]] = []
    for (letter, x, y), (left, up) in zip(spots, points, strict=True):

        def room(side: tuple[float, float], left: float = left, up: float = up) -> float:
            place = (left + side[0], up + side[1])
            others = [*taken, *(point for point in points if point != (left, up))]
            return min(min((math.dist(place, other) for other in others), default=9.0), 9.0)

        side = max(SIDES, key=room)
        taken.append((left + side[0], up + side[1]))
        style = {"textcoords": "offset points", "fontsize": 8, "color": INK, "ha": "center", "va": "center"}
        ax.annotate(letter, (x, y), side, **style).set_in_layout(False)


def _ends(ax: Any, found: Sequence[Line]) -> None:
    """The letter of each line at its end, moved apart where ends are close, in pairs where they are the same."""
    if len(found) < 2:
        return
    ax.figure.get_layout_engine().set(rect=(0, 0, 1 - ENDS, 1))
    _settle(ax)
    scale = 72 / ax.figure.dpi
    together: dict[tuple[int, int], list[tuple[str, tuple[float, float]]]] = {}
    for line in found:
        if (point := _last(line)) is not None:
            x, y = ax.transData.transform(point)
            together.setdefault((round(float(x) / 3), round(float(y) / 3)), []).append((line.look.letter, point))
    for column in {x for x, _ in together}:
        names = [
            ("".join(letter for letter, _ in pair), pair[0][1])
            for place in sorted(place for place in together if place[0] == column)
            for pair in _pairs(together[place])
        ]
        heights = [scale * float(ax.transData.transform(point)[1]) for _, point in names]
        for (name, point), at, height in zip(names, heights, spread(heights, 8.0), strict=True):
            text = ax.annotate(name, point, (5, height - at), **BESIDE)
            text.set_in_layout(False)  # the axes stay where places were measured


def _pairs(members: Sequence[Member]) -> list[Sequence[Member]]:
    return [members[i : i + 2] for i in range(0, len(members), 2)]


def spread(ascending: Sequence[float], gap: float) -> list[float]:
    """Moves numbers apart until each is at least `gap` above the one before, around where they were."""
    groups: list[tuple[float, int]] = []  # center, members
    for value in ascending:
        center, count = value, 1
        while groups and center - gap * (count - 1) / 2 < groups[-1][0] + gap * (groups[-1][1] + 1) / 2:
            before, members = groups.pop()
            center = (before * members + center * count) / (members + count)
            count += members
        groups.append((center, count))
    return [center + gap * (i - (count - 1) / 2) for center, count in groups for i in range(count)]


def _last(line: Line) -> tuple[float, float] | None:
    points: Mapping[float, float] = {x: y for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)}
    return max(points.items()) if points else None
