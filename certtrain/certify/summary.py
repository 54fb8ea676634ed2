"""The numbers that are reported, counted from verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from certtrain.certify.verdict import STATUSES, Verdict


def count_statuses(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Number of images with each status; every status appears."""
    found = Counter(verdict.status for verdict in verdicts)
    return {status: found[status] for status in STATUSES}


def summarize(verdicts: Sequence[Verdict], verifiers: Sequence[str] | None = None) -> dict[str, Any]:
    """Accuracies as fractions of all images; None where there are no images.

    Args:
        verdicts: What is counted.
        verifiers: Names of the verifiers that certified: each appears, with 0.0 if it had no image to judge, as
            when none is classified correctly. None: those that the verdicts name.

    Returns:
        images: Their number.
        natural_accuracy: Classified correctly.
        attacked_accuracy: Classified correctly and not falsified by the attack.
        certified_accuracy: Verified by any verifier.
        certified_accuracy_by: Verifier -> fraction that it verified, whatever the others did.
        statuses: Status -> number of images.
    """
    names = dict.fromkeys([*(verifiers or ()), *(name for verdict in verdicts for name in verdict.margins)])
    by = {name: _fraction([(v.margins.get(name) or 0) > 0 for v in verdicts]) for name in names}
    return {
        "images": len(verdicts),
        "natural_accuracy": _fraction([v.correct for v in verdicts]),
        "attacked_accuracy": _fraction([v.correct and v.status != "falsified" for v in verdicts]),
        "certified_accuracy": _fraction([v.status == "verified" for v in verdicts]),
        "certified_accuracy_by": by,
        "statuses": count_statuses(verdicts),
    }


def _fraction(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None
