"""report.html of a run: the whole of it on one self-contained page, from the files in its directory."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certtrain.certify import STATUSES, Verdict, read_ledger, read_verifiers, summarize
from certtrain.errors import DataError
from certtrain.nodes import flatten
from certtrain.report.analysis import FOLDER as ANALYSIS
from certtrain.report.analysis import analysis_tables
from certtrain.report.certifications import find_certifications
from certtrain.report.collected_text import value_text
from certtrain.report.curves import write_curves
from certtrain.report.identity import as_record
from certtrain.report.margins import Histogram, draw_histogram, histograms, write_margins
from certtrain.report.metrics import read_metrics
from certtrain.report.origin import read_origin
from certtrain.report.page import radii, training
from certtrain.report.page.facts import facts, what_was_trained
from certtrain.report.page.gallery import SHOWN, Images, gallery
from certtrain.report.page.head import Tile
from certtrain.report.page.material import LEDGER, Material, duration, read_yaml
from certtrain.report.page.measured import measured_charts
from certtrain.report.page.render import write_page
from certtrain.report.page.svg import inline
from certtrain.report.page.waterfall import waterfall
from certtrain.report.rows import (
    UNKNOWN,
    failure_lines,
    recorded_title,
    result_rows,
    stage_rows,
    stages_heading,
    verifiers,
)
from certtrain.report.summary import read_summary

MEANINGS = {
    "misclassified": "wrong without any perturbation",
    "falsified": "a counterexample was found, and confirmed in two precisions",
    "verified": "proved robust",
    "unknown": "neither proved nor falsified",
    "timeout": "undecided when its time was used up",
    "oom": "undecided because memory was exhausted",
    "error": "undecided because something failed",
}
# What other commands draw of a run in more points than a page has room for.
MEASURED = (("Certified loss on the plane of both", "landscape/plane.png"),)
# Image numbers and distinct messages that are listed per status.
LISTED = 25
MESSAGES = 3
NAME = "report.html"


@dataclass(frozen=True)
class StatusRow:
    """One status: how many images, and which."""

    name: str
    count: int
    percent: float
    meaning: str
    images: str
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Plot:
    """A PNG under a heading; `data` is its base64 text."""

    heading: str
    data: str


def write_report(
    directory: str | os.PathLike[str],
    images: Images | None = None,
    path: Path | None = None,
    shown: int = SHOWN,
    heading: str | None = None,
) -> Path:
    """Writes curves.png, margins.png and report.html of a run.

    Whatever is there is shown: summary.json, ledger.jsonl, metrics.jsonl, config.yaml. Without a summary, as
    after an interrupted run, the numbers are those of the ledger so far.

    Args:
        directory: The run directory.
        images: Test images by their number, [channels, height, width] in pixel units, for the gallery; None: those that
            an earlier page has kept.
        path: The page, where it is not report.html in the run directory.
        shown: How many images the gallery has.
        heading: Above everything; None says what was trained.

    Returns:
        The page.

    Raises:
        DataError: If there is nothing to show, or a file is damaged.
    """
    run = Path(directory)
    verdicts = read_ledger(run / LEDGER)
    node = read_yaml(run / "config.yaml")
    config = node if isinstance(node, dict) else {}
    series = read_metrics(run / "metrics.jsonl")
    record = _record(run, config, verdicts)
    config = config or record.get("config") or {}
    material = Material(run, record, dict(flatten(config)), series, ())
    heading = heading or recorded_title(record)
    written = [
        write_curves(run / "metrics.jsonl", run / "curves.png", heading),
        write_margins(verdicts, run / "margins.png", heading),
    ]
    plots = [Plot(name, _base64(run / file)) for name, file in MEASURED if (run / file).is_file()]
    if not (config or verdicts or plots or any(written) or record.get("parameters")):
        raise DataError(
            f"{run} is no run directory: it has no summary.json, ledger.jsonl, metrics.jsonl or config.yaml"
        )
    context: dict[str, Any] = {
        "title": heading[0].upper() + heading[1:],
        **_result(run, material, verdicts),
        **_drawn(material, verdicts),
        "pictures": gallery(run / LEDGER, verdicts, images, shown),
        "certifications": find_certifications(run),
        "plots": plots,
        "tables": analysis_tables(run / ANALYSIS),
        "facts": list(facts(material)),
        "command": material.command,
        "config": [(key, value_text(value)) for key, value in material.config.items()],
        "directory": str(run.resolve()),
        "version": (record.get("versions") or {}).get("certtrain") or "",
    }
    return write_page("run.html", {**context, "sections": _sections(context)}, path or run / NAME)


def _result(run: Path, material: Material, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The numbers."""
    record = material.record
    return {
        "lead": "; ".join([*what_was_trained(material), verifiers(record)]),
        "tiles": list(_tiles(record)),
        "trouble": _missing(run, record),
        "rows": result_rows(record),
        "failures": failure_lines(record),
        "fall": waterfall(verdicts),
        "stages": stage_rows(record),
        "stages_heading": stages_heading(record),
        "statuses": _status_rows(verdicts),
    }


def _drawn(material: Material, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The charts."""
    margins = [inline(_drawing(one), f"Margins by {one.note}", (3.7, 2.0)) for one in histograms(verdicts)]
    return {
        "radii": radii.run_charts(material),
        "training": training.run_charts(material.series),
        "margins": margins,
        "measured": list(measured_charts(material.directory)),
    }


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Anchor, name, and whether it is there."""
    return [
        ("images", "Images", bool(context["pictures"])),
        ("radii", "Over eps", bool(context["radii"])),
        ("training", "Training", bool(context["training"])),
        ("margins", "Margins", bool(context["margins"])),
        ("statuses", "Statuses", bool(context["statuses"])),
        ("facts", "Facts", True),
        ("config", "Configuration", bool(context["config"])),
    ]


def _missing(run: Path, record: Mapping[str, Any]) -> list[str]:
    """What a run has not come to."""
    if (run / "summary.json").is_file():
        return []
    return [f"no result yet: interrupted, or at work; {record.get('images') or 0:,} images are judged so far"]


def _tiles(record: Mapping[str, Any]) -> Iterator[Tile]:
    def percent(name: str) -> str:
        value = record.get(name)
        return UNKNOWN if value is None else f"{100 * value:.2f} %"

    yield Tile("certified", percent("certified_accuracy"), verifiers(record))
    yield Tile("natural", percent("natural_accuracy"), f"of {record.get('images') or 0:,} test images")
    yield Tile("attacked", percent("attacked_accuracy"), "correct under attack")
    if record.get("train_seconds") is not None:
        certified = record.get("certify_seconds")
        note = "" if certified is None else f"certification: {duration(certified)}"
        yield Tile("training", duration(record["train_seconds"]), note)


def _drawing(found: Histogram) -> Any:
    def draw(ax: Any) -> None:
        tallest = draw_histogram(ax, found, bins=30)
        ax.set_ylim(0, 1.15 * max(tallest, 1))
        words = ax.get_title(loc="left").replace(": ", ":\n", 1).replace(" (leftmost", "\n(leftmost")
        ax.set_title(words, fontsize=9)
        ax.set_xlabel("logits")

    return draw


def _record(run: Path, config: Mapping[str, Any], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """summary.json, or as much of it as is known without."""
    if (run / "summary.json").is_file():
        return read_summary(run / "summary.json")
    known = read_origin(run) | as_record(config)
    return {**known, **(summarize(verdicts, read_verifiers(run / LEDGER)) if verdicts else {})}


def _status_rows(verdicts: Sequence[Verdict]) -> list[StatusRow]:
    rows = []
    for status in STATUSES:
        found = [verdict for verdict in verdicts if verdict.status == status]
        if not found:
            continue
        numbers = ", ".join(str(verdict.index) for verdict in found[:LISTED])
        said = [text for verdict in found for text in (verdict.message, *_remarks(verdict)) if text]
        messages = Counter(said).most_common(MESSAGES)
        rows.append(
            StatusRow(
                status,
                len(found),
                100 * len(found) / len(verdicts),
                MEANINGS[status],
                numbers + (", …" if len(found) > LISTED else ""),
                tuple(f"{count:,} × {message}" for message, count in messages),
            )
        )
    return rows


def _remarks(verdict: Verdict) -> list[str]:
    return [f"{stage}: {remark}" for stage, remark in verdict.remarks.items()]


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
