"""Which stage settled how many images, as a bar of parts: each image counts once, where it was settled first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from certtrain.certify import Verdict
from certtrain.certify.verdict import FAILURES


@dataclass(frozen=True)
class Part:
    """Images that ended alike.

    Attributes:
        what: How, and by whom: "falsified by attack".
        kind: wrong, falsified, verified, unknown or failed: how it looks.
        images: How many.
        share: Of all images, in percent.
        order: Among the parts of its kind, from 0; tells verifiers apart.
    """

    what: str
    kind: str
    images: int
    share: float
    order: int = 0


def waterfall(verdicts: Sequence[Verdict]) -> list[Part]:
    """The parts of a ledger, in the order in which stages are asked; none of nothing."""
    ends = Counter(_end(verdict) for verdict in verdicts)
    verifiers = list(dict.fromkeys(name for verdict in verdicts for name in verdict.margins))
    rank = {"wrong": 0, "falsified": 1, "verified": 2, "unknown": 3, "failed": 4}
    places = {f"proved by {name}": place for place, name in enumerate(verifiers)}
    ordered = sorted(ends, key=lambda end: (rank[end[0]], places.get(end[1], 0), end[1]))
    parts: list[Part] = []
    for kind, what in ordered:
        images = ends[kind, what]
        order = sum(part.kind == kind for part in parts)
        parts.append(Part(what, kind, images, 100 * images / len(verdicts), order))
    return parts


def _end(verdict: Verdict) -> tuple[str, str]:
    """Kind and words."""
    if verdict.status == "misclassified":
        return "wrong", "misclassified"
    if verdict.status == "falsified":
        return "falsified", f"falsified by {verdict.falsified_by or 'attack'}"
    if verdict.status == "verified":
        return "verified", f"proved by {verdict.verified_by}"
    if verdict.status in FAILURES:
        return "failed", {"timeout": "out of time", "oom": "out of memory"}.get(verdict.status, "failed")
    return "unknown", "left open"
