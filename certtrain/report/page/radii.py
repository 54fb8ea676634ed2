"""Accuracy over eps, of what was certified afterwards; numbers of different verifiers never stand in one chart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from markupsafe import Markup

from certtrain.errors import DataError
from certtrain.nodes import flatten
from certtrain.report.certifications import FOLDER
from certtrain.report.eps_curve import draw_radii
from certtrain.report.page.charts import WIDE, Line, lines
from certtrain.report.page.entries import Entry
from certtrain.report.page.material import Material, read_yaml
from certtrain.report.page.svg import inline
from certtrain.report.rows import verifiers
from certtrain.report.summary import read_summary

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RadiiChart:
    """A chart, and who certified what it shows."""

    by: str
    svg: Markup


def run_charts(run: Material) -> list[RadiiChart]:
    """Natural, attacked and certified accuracy of one run, a chart for each set of verifiers at several radii."""
    charts = []
    for judged, records in _together(run).items():
        if len(records) > 1:
            ordered = [records[eps] for eps in sorted(records)]
            by = _words(judged)

            def draw(ax: Any, ordered: Sequence[Record] = ordered) -> None:
                draw_radii(ax, ordered)
                ax.legend(loc="lower left")

            charts.append(RadiiChart(by, inline(draw, f"Accuracy over eps, {by}", WIDE)))
    return charts


def study_charts(entries: Sequence[Entry]) -> tuple[list[RadiiChart], list[Entry]]:
    """Certified and attacked accuracy of settings, likewise; bands are from the least to the greatest seed.

    Returns:
        The charts, and the settings that are in them.
    """
    found: dict[Hashable, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        of_runs = [_together(run) for run in entry.runs]
        for judged in dict.fromkeys(key for one in of_runs for key in one):
            seeds = [one[judged] for one in of_runs if len(one.get(judged, {})) > 1]
            for name in ("certified_accuracy", "attacked_accuracy"):
                line = _line(entry, seeds, name)
                if line is not None:
                    found[judged][name].append(line)
    names = {"certified_accuracy": "Certified (%)", "attacked_accuracy": "Correct under attack (%)"}
    shown_letters = {line.look.letter for by_name in found.values() for one in by_name.values() for line in one}
    charts = [
        RadiiChart(_words(judged), lines(shown, names[name], "eps (L-infinity, pixel units)", percent=True))
        for judged, by_name in found.items()
        for name, shown in by_name.items()
    ]
    return charts, [entry for entry in entries if entry.look.letter in shown_letters]


def _line(entry: Entry, seeds: Sequence[Mapping[float, Record]], name: str) -> Line | None:
    at: dict[float, list[float]] = defaultdict(list)
    for records in seeds:
        for eps, record in records.items():
            if isinstance(record.get(name), (int, float)):
                at[eps].append(100 * record[name])
    radii = [eps for eps in sorted(at) if len(at[eps]) == len(seeds)]
    if len(radii) < 2:
        return None
    values = [at[eps] for eps in radii]
    center = tuple(map(mean, values))
    if len(seeds) == 1:
        return Line(entry.look, tuple(radii), center)
    return Line(entry.look, tuple(radii), center, tuple(map(min, values)), tuple(map(max, values)))


def _together(run: Material) -> dict[Hashable, dict[float, Record]]:
    """What judged -> eps -> record, of everything that was certified of a run."""
    found: dict[Hashable, dict[float, Record]] = defaultdict(dict)
    for directory, record in _records(run):
        eps = record.get("eps")
        if isinstance(eps, (int, float)) and record.get("images"):
            data = record.get("data") or {}
            arithmetic = _arithmetic(directory)
            found[verifiers(record), record["images"], data.get("judged"), arithmetic].setdefault(float(eps), record)
    return found


def _records(run: Material) -> Iterator[tuple[Path, Record]]:
    yield run.directory, run.record
    for file in sorted((run.directory / FOLDER).glob("*/summary.json")):
        try:
            yield file.parent, read_summary(file)
        except DataError:  # it is named among the certifications of its run
            continue


def _arithmetic(directory: Path) -> str:
    try:
        config = dict(flatten(read_yaml(directory / "config.yaml")))
    except DataError:
        return "float64"
    return str(config.get("certify.arithmetic", "float64"))


def _words(judged: Any) -> str:
    by, images, _, arithmetic = judged
    return f"{by}, {images:,} images" + ("" if arithmetic == "float64" else f", {arithmetic} arithmetic")
