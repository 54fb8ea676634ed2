"""What is said of one image: a row of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

FailureKind = Literal["error", "oom", "timeout"]
Status = Literal["misclassified", "falsified", "verified", "unknown", "timeout", "oom", "error"]
STATUSES: tuple[Status, ...] = get_args(Status)
FAILURES: tuple[FailureKind, ...] = get_args(FailureKind)
# Stages before the verifiers; no verifier has one of these names.
PREDICTION, ATTACK = "prediction", "attack"
# Columns that the first ledgers did not have.
LATER = frozenset({"falsified_by", "counterexample", "remarks", "stages", "cascade"})


@dataclass(frozen=True)
class Failure:
    """Why a stage came to no result on an image.

    Attributes:
        kind: timeout if it was not started because the image's time was used up, oom if memory was exhausted even for
            one image, error otherwise (an exception, or numbers that are not finite).
        message: One line.
    """

    kind: FailureKind
    message: str


@dataclass(frozen=True)
class Verdict:
    """One image's verdict.

    Attributes:
        index: The image's number in its data set.
        label: Its class.
        predicted: The class that the network gives to the unperturbed image; None where its outputs are not
            finite.
        status: One of `STATUSES`.
        verified_by: The first verifier that proved the image robust; None unless `status` is verified.
        margin: What `verified_by` proved: a lower bound, in logits, of the smallest margin to a wrong class
            anywhere in the box. For an image that is not verified, the largest of `margins`; None where there
            is none.
        seconds: Time spent on the image; a batch's time is shared equally by its images.
        margins: Verifier -> lower bound of the smallest margin, in float64, for each verifier that ran; None
            where it failed. A verifier has proved the image robust exactly if its entry is positive: an entry
            that only float64 finds positive is replaced by what float32 found.
        message: Everything that failed, in one line, whatever the status; None if nothing did.
        image: Digest of the image that this is about (`case.image_digest`), so that it is never taken for
            another one's; None if not known.
        failures: Stage (prediction, attack, or a verifier's name) -> why it came to no result. A verifier that is
            neither here nor in `margins` was not asked, as none is where the image is misclassified.
        eps: Radius of the ball that this is about, in the unit of the inputs; None if not known.
        falsified_by: Who found the counterexample, the attack or a verifier; None unless `status` is falsified.
        counterexample: The file that holds it, relative to the folder of the ledger; None where there is none. See
            `certtrain.certify.read_counterexample`.
        remarks: Stage -> what it claimed and could not show, such as a counterexample that was not confirmed. Neither a
            failure nor evidence.
        stages: Stage -> seconds that it spent on the image, for each that was at work on it; empty if not known.
        cascade: By which the image was led through the stages (`cascade.CASCADES`). With first, a verifier that is
            not in `margins` may have had nothing left to judge.
    """

    index: int
    label: int
    predicted: int | None
    status: Status
    verified_by: str | None
    margin: float | None
    seconds: float
    margins: Mapping[str, float | None] = field(default_factory=dict)
    message: str | None = None
    image: str | None = None
    failures: Mapping[str, Failure] = field(default_factory=dict)
    eps: float | None = None
    falsified_by: str | None = None
    counterexample: str | None = None
    remarks: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, float] = field(default_factory=dict)
    cascade: str = "all"

    @property
    def correct(self) -> bool:
        """Whether the unperturbed image is classified correctly."""
        return self.predicted == self.label

    def row(self) -> dict[str, Any]:
        """The verdict as plain containers, in the order of the ledger's columns."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Verdict:
        """The inverse of `row`; unknown columns are ignored, and those that rows had not always may be missing.

        Raises:
            KeyError: If a column is missing.
            ValueError: If a status or a kind of failure is unknown.
        """
        failures = {stage: Failure(found["kind"], found["message"]) for stage, found in row["failures"].items()}
        if row["status"] not in STATUSES:
            raise ValueError(f"unknown status '{row['status']}'")
        for failure in failures.values():
            if failure.kind not in FAILURES:
                raise ValueError(f"unknown kind of failure '{failure.kind}'")
        known = {f.name: row[f.name] for f in fields(cls) if f.name in row or f.name not in LATER}
        if known["status"] == "falsified" and "falsified_by" not in known:
            known["falsified_by"] = ATTACK  # nothing else found counterexamples then
        return cls(**known | {"failures": failures})
