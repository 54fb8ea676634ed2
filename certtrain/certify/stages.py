"""What each stage did with the images that it was asked about, in the order in which stages are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from certtrain.certify.verdict import ATTACK, PREDICTION, Verdict


@dataclass(frozen=True)
class StageTally:
    """One stage.

    Attributes:
        name: prediction, attack, or a verifier's name.
        asked: Images that it was to judge, those that it failed on among them.
        settled: Of these, those of which it found the answer: misclassified, verified or falsified by it.
        verified: Images that it proved robust, whoever else did.
        falsified: Images of which it was the first to find a counterexample.
        failed: Images that it came to no result on: an error, exhausted memory or time.
        seconds: Time that it took altogether; None where that was not noted.
    """

    name: str
    asked: int
    settled: int
    verified: int
    falsified: int
    failed: int
    seconds: float | None


def tally_stages(verdicts: Sequence[Verdict], verifiers: Sequence[str]) -> list[StageTally]:
    """What became of images, stage by stage.

    Args:
        verdicts: One per image.
        verifiers: In the order in which they are asked.
    """
    wrong = sum(verdict.status == "misclassified" for verdict in verdicts)
    correct = [verdict for verdict in verdicts if verdict.correct]
    found = [_tally(PREDICTION, verdicts, wrong), _tally(ATTACK, correct)]
    return [*found, *(_tally(name, [v for v in verdicts if _was_asked(v, name)]) for name in verifiers)]


def has_failed(verdict: Verdict, stage: str) -> bool:
    """Whether a stage came to no result."""
    return stage in verdict.failures or verdict.margins.get(stage, 0.0) is None


def _was_asked(verdict: Verdict, verifier: str) -> bool:
    return verifier in verdict.margins or verifier in verdict.failures or verdict.falsified_by == verifier


def _tally(name: str, asked: Sequence[Verdict], misclassified: int = 0) -> StageTally:
    verified = sum((verdict.margins.get(name) or 0.0) > 0 for verdict in asked)
    falsified = sum(verdict.falsified_by == name for verdict in asked)
    failed = sum(has_failed(verdict, name) for verdict in asked)
    noted = all(verdict.stages for verdict in asked)
    seconds = round(sum((verdict.stages.get(name, 0.0) for verdict in asked), 0.0), 6) if noted else None
    return StageTally(name, len(asked), misclassified + verified + falsified, verified, falsified, failed, seconds)
