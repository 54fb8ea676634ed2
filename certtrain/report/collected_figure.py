"""collected.png: every setting as a row, and a panel of lines for every number that was varied by itself."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.report.collect import Collection, Group, Statistic
from certtrain.report.collect_keys import KEYS, identity, is_number
from certtrain.report.collect_read import IMAGES, Setting
from certtrain.report.collected_text import headline, setting_cells, value_text
from certtrain.report.style import BLUE, GREEN, GREY, LINE_INCHES, ORANGE, RED, drawing, save, title_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = (BLUE, ORANGE, GREEN, RED, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Rows of settings; more are in the table only. Likewise lines of a panel.
MOST_ROWS, MOST_LINES = 150, 8
# Longest text of a value and of a line's name.
LONGEST = 24
# Inches: a row, a line panel, the plot beside the settings, and a character of their text.
ROW, PANEL, PLOT, CHARACTER = 0.2, (4.4, 4.0), 5.0, 0.068
# Percent that axes show: points at the ends are not cut in halves.
WHOLE = (-1.5, 101.5)
# Line panels beside each other, if the rows need no wider figure.
BESIDE = 3


@dataclass(frozen=True)
class Line:
    """Groups that differ in one number only.

    Attributes:
        pair: Training relaxation and method.
        name: These, and what else tells the line from other ones of its panel.
        groups: At least two, by that number.
    """

    pair: str
    name: str
    groups: tuple[Group, ...]


def write_figure(collection: Collection, path: Path) -> Path:
    """Draws the collection as a PNG, see `draw_collection`, and returns the file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a box stands for it
        return save(draw_collection(collection), path)


def draw_collection(collection: Collection) -> Figure:
    """Accuracies of each setting, and how they depend on each number that was varied alone.

    Two groups are joined by a line exactly if they are the same but for the number on the axis.
    """
    from matplotlib.figure import Figure

    groups = collection.groups[:MOST_ROWS]
    labels = _labels(collection, groups)
    panels = {key: lines for key in collection.keys.columns if (lines := _lines(collection, key))}
    width = max(CHARACTER * max(map(len, labels[0].split("\n"))) + PLOT, min(len(panels), BESIDE) * PANEL[0])
    beside = int(width / PANEL[0])
    below = math.ceil(len(panels) / beside)
    title = title_lines(headline(collection), width)
    heights = [ROW * (len(groups) + labels[0].count("\n") + 1) + 1.4, below * PANEL[1]][: 1 + bool(panels)]
    with drawing():
        canvas = Figure(figsize=(width, sum(heights) + 0.2 + LINE_INCHES * len(title)), layout="constrained")
        canvas.suptitle("\n".join(title), x=0.01, ha="left")
        parts: Any = canvas.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
        _draw_rows(parts[0, 0].subplots(), groups, labels, len(collection.groups))
        if panels:
            _draw_panels(list(parts[1, 0].subplots(below, beside, squeeze=False).flat), panels)
    return canvas


def _draw_panels(axes: Sequence[Any], panels: Mapping[str, Sequence[Line]]) -> None:
    pairs = dict.fromkeys(line.pair for lines in panels.values() for line in lines)
    colors = {pair: COLORS[i % len(COLORS)] for i, pair in enumerate(pairs)}
    for ax, (key, lines) in zip(axes, panels.items(), strict=False):
        _draw_lines(ax, key, lines, colors)
    for ax in axes[len(panels) :]:
        ax.remove()


def _labels(collection: Collection, groups: Sequence[Group]) -> list[str]:
    """A heading and the settings of all groups, as the rows of a table in characters of one width."""
    columns = collection.keys.columns
    headings = [key.removesuffix(".name").split(".") for key in columns]
    depth = max(map(len, headings))
    tall = [[""] * (depth - len(parts)) + parts for parts in headings]
    heads = [[_short(parts[i]) for parts in tall] for i in range(depth)]
    rows = [[_short(cell) for cell in setting_cells(group.setting, columns)] for group in groups]
    widths = [max(len(row[i]) for row in (*heads, *rows)) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (*heads, *rows)]
    return ["\n".join(lines[:depth]), *lines[depth:]]


def _short(text: str) -> str:
    line = " ".join(text.split()).replace("$", r"\$")  # which would begin a formula
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _draw_rows(ax: Any, groups: Sequence[Group], labels: Sequence[str], all_groups: int) -> None:
    methods = list(dict.fromkeys(str(group.setting.get(KEYS[1])) for group in groups))
    for i, method in enumerate(methods):
        at = [row for row, group in enumerate(groups) if str(group.setting.get(KEYS[1])) == method]
        _draw_points(ax, at, [groups[row].certified for row in at], COLORS[i % len(COLORS)], f"{method}: certified")
    style = {"fmt": "|", "markersize": 9, "color": "black", "elinewidth": 0.8, "label": "natural"}
    at = [row for row, group in enumerate(groups) if group.natural.mean is not None]
    if at:
        middle, spread = _points(groups[row].natural for row in at)
        ax.errorbar(middle, at, xerr=spread, **style)
    for row, group in enumerate(groups):
        if group.certified.mean is None:
            ax.text(1, row, "not certified", va="center", fontsize="small", color=GREY)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_yticks([-0.6, *range(len(groups))], labels, fontfamily="monospace", fontsize=8)
    ax.tick_params(axis="y", length=0)
    ax.get_yticklabels()[0].set(verticalalignment="bottom", fontweight="bold")
    ax.set_xlim(*WHOLE)
    ax.set_xlabel("% of test images")
    if all_groups > len(groups):
        ax.set_xlabel(f"% of test images; {all_groups - len(groups)} more settings are in the table")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def _draw_points(ax: Any, at: Sequence[int], certified: Sequence[Statistic], color: str, label: str) -> None:
    """Certified accuracies; hollow where not all images are decided."""
    for complete, face, name in ((True, color, label), (False, "white", f"{label}, not all images decided")):
        chosen = [(y, s) for y, s in zip(at, certified, strict=True) if s.complete == complete and s.mean is not None]
        if chosen:
            middle, spread = _points(s for _, s in chosen)
            style = {"fmt": "o", "markersize": 5, "capsize": 2, "color": color, "markerfacecolor": face}
            ax.errorbar(middle, [y for y, _ in chosen], xerr=spread, label=name, **style)


def _lines(collection: Collection, key: str) -> list[Line]:
    """The lines over one number; none where it is no number, or other things changed with it everywhere."""
    together: dict[Hashable, list[Group]] = defaultdict(list)
    for group in collection.groups:
        if key != IMAGES and is_number(group.setting.get(key)):
            together[identity({k: v for k, v in group.setting.items() if k != key})].append(group)
    found = [sorted(members, key=lambda g: g.setting[key]) for members in together.values() if len(members) > 1]
    first = [members[0].setting for members in found]
    telling = [k for k in collection.keys.columns if k not in (key, *KEYS) and _differs(first, k)]
    return [Line(_line_name(members[0], ()), _line_name(members[0], telling), tuple(members)) for members in found]


def _differs(settings: Sequence[Setting], key: str) -> bool:
    return len({identity({key: setting[key]} if key in setting else {}) for setting in settings}) > 1


def _line_name(group: Group, keys: Sequence[str]) -> str:
    """Relaxation and method, and the values of some keys."""
    setting = group.setting
    names = {**dict.fromkeys(KEYS, ""), **{key: key.rsplit(".", 1)[-1] + " " for key in keys}}
    return ", ".join(name + _short(value_text(setting[key])) for key, name in names.items() if key in setting)


def _draw_lines(ax: Any, key: str, lines: Sequence[Line], colors: Mapping[str, str]) -> None:
    shown = sorted(lines, key=lambda line: -len(line.groups))[:MOST_LINES]
    for i, line in enumerate(shown):
        at = [group.setting[key] for group in line.groups]
        color, marker = colors[line.pair], MARKERS[i % len(MARKERS)]
        for what, style in (("natural", ":"), ("certified", "-")):
            statistics = [getattr(group, what) for group in line.groups]
            heights, errors = _points(statistics)
            label = line.name if what == "certified" else None
            drawn = {"markersize": 4, "capsize": 2, "color": color, "linestyle": style, "marker": marker}
            ax.errorbar(at, heights, errors, label=label, **drawn)
            hollow = [(x, s.mean) for x, s in zip(at, statistics, strict=True) if not s.complete and s.mean is not None]
            if hollow:
                ax.plot(
                    *zip(*hollow, strict=True), marker, markersize=4, color=color, markerfacecolor="white", zorder=5
                )
    _set_scale(ax, sorted({group.setting[key] for line in shown for group in line.groups}))
    ax.set_ylim(*WHOLE)
    more = len(lines) - len(shown)
    ax.set_xlabel(key + (f" ({more} more lines are in the table)" if more else ""))
    ax.set_ylabel("% of test images")
    ax.set_title(f"{key}\ncertified; dotted: natural")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)


def _set_scale(ax: Any, values: Sequence[float]) -> None:
    if values[0] > 0 and values[-1] >= 4 * values[0]:
        ax.set_xscale("log")
    if len(values) <= 6:
        ax.set_xticks(values, [f"{value:g}" for value in values], minor=False)
        ax.minorticks_off()


def _points(statistics: Iterable[Statistic]) -> tuple[list[float], list[float]]:
    """Values and error bars; nothing is drawn where there is no number."""
    known = list(statistics)
    return [math.nan if s.mean is None else s.mean for s in known], [s.std or 0.0 for s in known]
