"""Certifications that were made of a run afterwards: a line each on its page, never mixed with its own numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from certtrain.errors import DataError
from certtrain.report.eps_curve import NAME as CURVE
from certtrain.report.rows import UNKNOWN, verifiers
from certtrain.report.summary import ACCURACIES, read_summary

# Where they are, in the run directory.
FOLDER = "certifications"


@dataclass(frozen=True)
class Certification:
    """One line.

    Attributes:
        name: Of its folder.
        page: Its own report, relative to the run directory; None if it has none.
        eps: The radius.
        images: How many were judged.
        by: Who certified.
        accuracies: Natural, attacked and certified, in percent.
    """

    name: str
    page: str | None
    eps: str
    images: str
    by: str
    accuracies: tuple[str, ...]


def find_certifications(run: Path) -> list[Certification]:
    """All that are finished, by ascending radius; one whose summary cannot be read says so."""
    found = [(_radius(path), _certification(path.parent)) for path in sorted((run / FOLDER).glob("*/summary.json"))]
    return [certification for _, certification in sorted(found, key=lambda pair: (pair[0], pair[1].name))]


def find_curves(run: Path) -> list[Path]:
    """Accuracies over eps, as pictures."""
    return sorted((run / FOLDER).glob(f"{CURVE}-*/{CURVE}.png"))


def _radius(path: Path) -> float:
    try:
        return float(read_summary(path).get("eps") or 0.0)
    except (DataError, TypeError, ValueError):
        return 0.0


def _certification(directory: Path) -> Certification:
    page = f"{FOLDER}/{directory.name}/report.html" if (directory / "report.html").is_file() else None
    try:
        record = read_summary(directory / "summary.json")
    except DataError:
        return Certification(
            directory.name, page, UNKNOWN, UNKNOWN, "summary.json cannot be read", (UNKNOWN,) * len(ACCURACIES)
        )
    values = [record.get(name) for name in ACCURACIES]
    percent = tuple(UNKNOWN if value is None else f"{100 * value:.2f}" for value in values)
    eps, images = record.get("eps"), f"{record.get('images') or 0:,}"
    radius = UNKNOWN if eps is None else f"{eps:g}"
    return Certification(directory.name, page, radius, images, verifiers(record), percent)
