"""The numbers that are reported, counted from verdicts: a rate is over what was judged, and says what was not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from certtrain.certify.stages import has_failed, tally_stages
from certtrain.certify.verdict import ATTACK, FAILURES, PREDICTION, STATUSES, Verdict


@dataclass(frozen=True)
class Tally:
    """What a stage (prediction, attack, or a verifier) came to; judged + failed + skipped are all images.

    Attributes:
        passed: Images that are classified correctly, withstood the attack, or were certified.
        decided: Images of which the stage's answer is known, which its rate is over: those that it judged, and those
            that need no judgement. A misclassified image is certified by nobody, a certified one withstands any attack.
        judged: Images that it came to a result on.
        failed: Images that it came to no result on: an error, numbers that are not finite, exhausted memory or time.
        skipped: Images that it was not asked about: they are misclassified, or their prediction failed.
    """

    passed: int
    decided: int
    judged: int
    failed: int
    skipped: int

    @property
    def rate(self) -> float | None:
        """Fraction of the decided images that passed; None where nothing was judged, unless all are decided."""
        total = self.judged + self.failed + self.skipped
        return self.passed / self.decided if self.decided and (self.judged or self.decided == total) else None


def count_statuses(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Number of images with each status; every status appears."""
    found = Counter(verdict.status for verdict in verdicts)
    return {status: found[status] for status in STATUSES}


def summarize(verdicts: Sequence[Verdict], verifiers: Sequence[str] | None = None) -> dict[str, Any]:
    """Accuracies as fractions of 1, and next to them what they are fractions of.

    Where a stage failed on some images, its rate leaves these out: neither passed nor failed would be known to be true.
    The certified accuracy is over all images nevertheless, since it claims no more than "at least"; None if every
    image is undecided because of failures.

    Args:
        verdicts: What is counted.
        verifiers: Names of the verifiers that certified: each appears, also if it had no image to judge. None: those
            that the verdicts name.

    Returns:
        images: Their number.
        natural_accuracy: Classified correctly.
        attacked_accuracy: Classified correctly and not falsified by the attack.
        certified_accuracy: Verified by any verifier, of all images.
        certified_accuracy_by: Verifier -> fraction that it verified, whatever the others did; see `Tally.rate`. Empty
            where a cascade asked verifiers only about what others had left: such a fraction would be misread.
        statuses: Status -> number of images.
        prediction, attack: The fields of their `Tally`.
        verifiers: Verifier -> the fields of its `Tally`; empty likewise.
        stages: The fields of each `StageTally`, in the order in which they are asked.
        cascade: By which the images were led through the stages; see `Verdict`.
        failures: What failed, also on images that were decided otherwise: stage, kind, number of images, and the
            message that most of them have.
    """
    names = dict.fromkeys([*(verifiers or ()), *(name for verdict in verdicts for name in _asked(verdict))])
    tallies = {name: tally_verifier(verdicts, name) for name in names}
    prediction, attack, statuses = _tally_prediction(verdicts), _tally_attack(verdicts), count_statuses(verdicts)
    undecided = sum(statuses[kind] for kind in FAILURES)
    stages, cascade = tally_stages(verdicts, list(names)), cascade_of(verdicts)
    if cascade != "all":
        tallies = {}
    return {
        "images": len(verdicts),
        "natural_accuracy": prediction.rate,
        "attacked_accuracy": attack.rate,
        "certified_accuracy": statuses["verified"] / len(verdicts) if undecided < len(verdicts) else None,
        "certified_accuracy_by": {name: tally.rate for name, tally in tallies.items()},
        "statuses": statuses,
        "prediction": asdict(prediction),
        "attack": asdict(attack),
        "verifiers": {name: asdict(tally) for name, tally in tallies.items()},
        "stages": [asdict(stage) for stage in stages],
        "cascade": cascade,
        "failures": _failures(verdicts, [PREDICTION, ATTACK, *names]),
    }


def tally_verifier(verdicts: Sequence[Verdict], name: str) -> Tally:
    """What a verifier came to."""
    margins = [m for v in verdicts if (m := v.margins.get(name)) is not None]
    # A counterexample is an answer, too, also where no bound was worked out beside it.
    judged = len(margins) + sum(v.falsified_by == name and v.margins.get(name) is None for v in verdicts)
    failed = sum(has_failed(v, name) for v in verdicts)
    wrong = sum(v.status == "misclassified" for v in verdicts)
    return Tally(
        passed=sum(margin > 0 for margin in margins),
        decided=judged + wrong,
        judged=judged,
        failed=failed,
        skipped=len(verdicts) - judged - failed,
    )


def cascade_of(verdicts: Iterable[Verdict]) -> str:
    """The cascade of all verdicts; of several, the one under which numbers of verifiers are no rates."""
    return max((verdict.cascade for verdict in verdicts), key=lambda name: name != "all", default="all")


def _tally_prediction(verdicts: Sequence[Verdict]) -> Tally:
    judged = sum(v.predicted is not None for v in verdicts)
    return Tally(sum(v.correct for v in verdicts), judged, judged, len(verdicts) - judged, 0)


def _tally_attack(verdicts: Sequence[Verdict]) -> Tally:
    correct = [v for v in verdicts if v.correct]
    judged = [v for v in correct if ATTACK not in v.failures]
    proved = [v for v in correct if ATTACK in v.failures and v.status == "verified"]
    wrong = sum(v.status == "misclassified" for v in verdicts)
    return Tally(
        passed=sum(v.falsified_by != ATTACK for v in judged) + len(proved),
        decided=len(judged) + len(proved) + wrong,
        judged=len(judged),
        failed=len(correct) - len(judged),
        skipped=len(verdicts) - len(correct),
    )


def _asked(verdict: Verdict) -> list[str]:
    """Verifiers that a verdict names."""
    return [*verdict.margins, *(stage for stage in verdict.failures if stage not in (PREDICTION, ATTACK))]


def _failures(verdicts: Sequence[Verdict], stages: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for stage in stages:
        found = [failure for v in verdicts if (failure := v.failures.get(stage)) is not None]
        for kind in FAILURES:
            messages = Counter(failure.message for failure in found if failure.kind == kind)
            if messages:
                message = messages.most_common(1)[0][0]
                rows.append({"stage": stage, "kind": kind, "images": messages.total(), "message": message})
    return rows
