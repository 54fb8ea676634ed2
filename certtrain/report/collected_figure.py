"""collected.png: certified accuracy by relaxation and method, and what else was varied around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from certtrain.report.collect import KEYS, Collection, Group, Setting, Statistic, reference
from certtrain.report.style import BLUE, GREEN, GREY, ORANGE, RED, drawing, figure, save

COLORS = (BLUE, ORANGE, GREEN, RED, GREY)
# Of all bars of one relaxation, of the distance between two.
WIDTH = 0.8
# Where legends begin, in heights of a panel: inside they would cover what is drawn.
BELOW = -0.22


def write_figure(collection: Collection, path: Path) -> Path:
    """Draws the collection: one panel of bars, and one panel of lines for every number that was varied.

    The bars, and the lines in a panel, are the groups in which everything else has its usual value (see `reference`).
    """
    usual = reference(collection)
    varied = [key for key, value in usual.items() if _is_number(value) and len(_values(collection, key)) > 1]
    title = "Accuracy, mean and standard deviation over seeds"
    with drawing():
        panels = 1 + len(varied)
        columns = panels if panels <= 3 else math.ceil(math.sqrt(panels))
        canvas, axes = figure(columns, math.ceil(panels / columns), title, size=(4.6, 4.2))
        _draw_bars(axes[0], _around(collection, usual, None), usual)
        lines = {key: _several(_around(collection, usual, key)) for key in varied}
        names = list(dict.fromkeys(name for several in lines.values() for name in several))
        colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
        for ax, (key, several) in zip(axes[1:], lines.items(), strict=False):
            _draw_lines(ax, several, key, colors)
        for ax in axes[panels:]:
            ax.remove()
        return save(canvas, path)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _values(collection: Collection, key: str) -> set[Any]:
    return {group.setting[key] for group in collection.groups if key in group.setting}


def _around(collection: Collection, usual: Setting, free: str | None) -> list[Group]:
    """Groups with the usual values of all keys that they have, except of `free`, which they must have."""
    groups = [group for group in collection.groups if free is None or _is_number(group.setting.get(free))]
    return [
        group
        for group in groups
        if all(key == free or key not in group.setting or group.setting[key] == usual[key] for key in usual)
    ]


def _draw_bars(ax: Any, groups: Sequence[Group], usual: Setting) -> None:
    relaxations = list(dict.fromkeys(str(group.setting.get(KEYS[0])) for group in groups))
    methods = list(dict.fromkeys(str(group.setting.get(KEYS[1])) for group in groups))
    width = WIDTH / len(methods)
    for i, method in enumerate(methods):
        of_method = [group for group in groups if str(group.setting.get(KEYS[1])) == method]
        at = [
            relaxations.index(str(group.setting.get(KEYS[0]))) + (i - (len(methods) - 1) / 2) * width
            for group in of_method
        ]
        color = COLORS[i % len(COLORS)]
        heights, errors = _points([group.certified for group in of_method])
        ax.bar(at, heights, 0.92 * width, yerr=errors, capsize=2, color=color, label=f"{method}: certified")
        natural, spread = _points([group.natural for group in of_method])
        label = "natural" if i == len(methods) - 1 else None
        ax.errorbar(at, natural, spread, fmt="_", markersize=9, color="black", elinewidth=0.8, label=label)
    ax.set_xticks(range(len(relaxations)), relaxations)
    ax.set_ylim(0, 100)
    ax.set_ylabel("% of test images")
    ax.set_title("By training relaxation")
    # No title may run into the next panel's, so what is the same for all stands below, two to a line.
    fixed = [f"{key} {value}" for key, value in usual.items()]
    ax.set_xlabel("\n".join(", ".join(fixed[i : i + 2]) for i in range(0, len(fixed), 2)), fontsize="small")
    _add_legend(ax)


def _several(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups by relaxation and method, where there are several to draw a line through."""
    together: dict[str, list[Group]] = {}
    for group in groups:
        together.setdefault(", ".join(str(group.setting.get(k)) for k in KEYS), []).append(group)
    return {name: members for name, members in together.items() if len(members) > 1}


def _draw_lines(ax: Any, several: Mapping[str, Sequence[Group]], key: str, colors: Mapping[str, str]) -> None:
    for name, members in several.items():
        ordered = sorted(members, key=lambda group: group.setting[key])
        at = [group.setting[key] for group in ordered]
        for what, style in (("certified", "o-"), ("natural", "s:")):
            heights, errors = _points([getattr(group, what) for group in ordered])
            drawn = {"markersize": 4, "capsize": 2, "color": colors[name], "label": f"{name}: {what}"}
            ax.errorbar(at, heights, errors, fmt=style, **drawn)
    shown = [group.setting[key] for members in several.values() for group in members]
    if shown and min(shown) > 0 and max(shown) >= 4 * min(shown):
        ax.set_xscale("log")
        ax.set_xticks(sorted(set(shown)), [f"{value:g}" for value in sorted(set(shown))], minor=False)
        ax.minorticks_off()
    ax.set_ylim(0, 100)
    ax.set_xlabel(key)
    ax.set_ylabel("% of test images")
    ax.set_title(key)
    if several:
        _add_legend(ax)


def _add_legend(ax: Any) -> None:
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, BELOW), ncols=2)


def _points(statistics: Sequence[Statistic]) -> tuple[list[float], list[float]]:
    """Heights and error bars; nothing is drawn where there is no number."""
    heights = [math.nan if s.mean is None else s.mean for s in statistics]
    return heights, [0.0 if s.std is None else s.std for s in statistics]
