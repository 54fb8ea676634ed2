"""report.html: the whole run on one self-contained page, from the files in its directory."""

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
from certtrain.files import replacing
from certtrain.report.analysis import analysis_tables
from certtrain.report.certifications import find_certifications, find_curves
from certtrain.report.curves import write_curves
from certtrain.report.facts import facts
from certtrain.report.identity import identify
from certtrain.report.margins import write_margins
from certtrain.report.origin import read_origin
from certtrain.report.rows import failure_lines, result_rows, stage_rows, stages_heading, title, verifiers
from certtrain.report.summary import read_summary
from certtrain.report.template import PAGE

MEANINGS = {
    "misclassified": "wrong without any perturbation",
    "falsified": "a counterexample was found, and confirmed in two precisions",
    "verified": "proved robust",
    "unknown": "neither proved nor falsified",
    "timeout": "undecided when its time was used up",
    "oom": "undecided because memory was exhausted",
    "error": "undecided because something failed",
}
# What other commands draw of a run.
MEASURED = (
    ("Certified loss along two directions", "landscape/lines.png"),
    ("Certified loss on the plane of both", "landscape/plane.png"),
    ("Bounds and gradients", "analysis/analysis.png"),
)
# Image numbers and distinct messages that are listed per status.
LISTED = 25
MESSAGES = 3


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


def write_report(directory: str | os.PathLike[str]) -> Path:
    """Writes curves.png, margins.png and report.html of a run.

    Whatever is there is shown: summary.json, ledger.jsonl, metrics.jsonl, config.yaml. Without a summary, as
    after an interrupted run, the numbers are those of the ledger so far.

    Args:
        directory: The run directory.

    Returns:
        The page.

    Raises:
        DataError: If there is nothing to show, or a file is damaged.
    """
    from jinja2 import Environment

    run = Path(directory)
    verdicts = read_ledger(run / "ledger.jsonl")
    config = _read_config(run / "config.yaml")
    record = _record(run, config, verdicts)
    config = config or record.get("config") or {}
    heading = title(record)
    pictures = (
        ("Training", write_curves(run / "metrics.jsonl", run / "curves.png", heading)),
        ("Margins", write_margins(verdicts, run / "margins.png", heading)),
        *(("Accuracy over eps, certified afterwards", path) for path in find_curves(run)),
    )
    further = [(name, run / file) for name, file in MEASURED if (run / file).is_file()]
    plots = [Plot(name, _base64(file)) for name, file in (*pictures, *further) if file is not None]
    if not (config or verdicts or plots or record.get("parameters")):
        raise DataError(
            f"{run} is no run directory: it has no summary.json, ledger.jsonl, metrics.jsonl or config.yaml"
        )
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    text = page.render(
        title=heading,
        verifiers=verifiers(record),
        rows=result_rows(record),
        stages=stage_rows(record),
        stages_heading=stages_heading(record),
        failures=failure_lines(record),
        statuses=_status_rows(verdicts),
        certifications=find_certifications(run),
        plots=plots,
        tables=analysis_tables(run / "analysis"),
        facts=list(facts(record)),
        config=list(_flatten(config)),
        directory=run.resolve(),
        version=(record.get("versions") or {}).get("certtrain") or "",
    )
    target = run / "report.html"
    with replacing(target) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


def _record(run: Path, config: Mapping[str, Any], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """summary.json, or as much of it as is known without."""
    if (run / "summary.json").is_file():
        return read_summary(run / "summary.json")
    known = read_origin(run) | identify(config) | {"data": {"name": (config.get("data") or {}).get("name")}}
    return {**known, **(summarize(verdicts, read_verifiers(run / "ledger.jsonl")) if verdicts else {})}


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is no YAML: {str(error).splitlines()[0]}") from error
    return config if isinstance(config, dict) else {}


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


def _flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Configuration keys as they are given on the command line, with their values."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, "null" if node is None else str(node).lower() if isinstance(node, bool) else str(node)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
