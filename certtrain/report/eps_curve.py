"""Accuracy over the radius: what a network withstands, and what is proved of it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.files import replacing
from certtrain.report.rows import UNDECIDED_NAMES, subject
from certtrain.report.style import BLUE, GREEN, GREY, ORANGE, drawing, figure, percent_limits, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "curve"
LINES: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("natural_accuracy", "correct as they are", GREY, {"linestyle": "--", "marker": "s"}),
    ("attacked_accuracy", "correct under attack", ORANGE, {"linestyle": "-", "marker": "v"}),
    ("certified_accuracy", "certified", GREEN, {"linestyle": "-", "marker": "o"}),
)
COLUMNS = ("eps", "images", *(name for name, *_ in LINES), "falsified", "undecided")


def write_eps_curve(records: Sequence[Mapping[str, Any]], directory: Path) -> Path:
    """Writes curve.csv, curve.png and curve.svg.

    Args:
        records: What stands in the summary.json of each radius; of one network and the same images.
        directory: Is made if it is not there.

    Returns:
        The PNG.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ordered = sorted(records, key=lambda record: record["eps"])
    with replacing(directory / f"{NAME}.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_row(record) for record in ordered)
    canvas = draw_eps_curve(ordered)
    save(canvas, directory / f"{NAME}.svg")
    return save(canvas, directory / f"{NAME}.png")


def draw_eps_curve(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracies in percent over eps; between what is certified and what withstands the attack nobody knows.

    Args:
        records: As in `write_eps_curve`, by ascending eps.
    """
    with drawing():
        heading = f"Accuracy over eps: {subject(records[0])}, {records[0]['images']:,} images"
        canvas, (ax,) = figure(1, 1, heading, size=(6.4, 3.6))
        draw_radii(ax, records)
        ax.legend(loc="best")
    return canvas


def draw_radii(ax: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """Draws the lines of `draw_eps_curve`, and the area between what is certified and what withstands the attack."""
    radii = [record["eps"] for record in records]
    percent = {name: [_percent(record, name) for record in records] for name, *_ in LINES}
    ax.fill_between(
        radii,
        percent["certified_accuracy"],
        percent["attacked_accuracy"],
        label="neither certified nor broken by the attack",
        color=BLUE,
        alpha=0.12,
        linewidth=0,
    )
    for name, label, color, style in LINES:
        ax.plot(radii, percent[name], label=label, color=color, markersize=4, **style)
    ax.set_xlabel("eps (L-infinity, pixel units)")
    ax.set_ylabel("images (%)")
    percent_limits(ax.set_ylim, [value for values in percent.values() for value in values])
    ax.set_xlim(left=min(0.0, *radii))


def _percent(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    return float("nan") if value is None else 100 * float(value)


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    statuses = record.get("statuses") or {}
    undecided = sum(int(statuses.get(kind, 0)) for kind in UNDECIDED_NAMES)
    known = {"falsified": statuses.get("falsified", 0), "undecided": undecided}
    return {name: record.get(name) for name in COLUMNS if name not in known} | known
