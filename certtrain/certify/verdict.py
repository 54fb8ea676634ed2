"""What is said of one image: a row of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

Status = Literal["misclassified", "falsified", "verified", "unknown", "timeout", "oom", "error"]
STATUSES: tuple[Status, ...] = get_args(Status)


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
        message: Why, in one line, where the status is error or oom.
        image: Digest of the image that this is about (`case.image_digest`), so that it is never taken for
            another one's; None if not known.
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

    @property
    def correct(self) -> bool:
        """Whether the unperturbed image is classified correctly."""
        return self.predicted == self.label

    def row(self) -> dict[str, Any]:
        """The verdict as plain containers, in the order of the ledger's columns."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Verdict:
        """The inverse of `row`; unknown columns are ignored.

        Raises:
            KeyError: If a column is missing.
            ValueError: If the status is none of `STATUSES`.
        """
        if row["status"] not in STATUSES:
            raise ValueError(f"unknown status '{row['status']}'")
        return cls(**{f.name: row[f.name] for f in fields(cls)})
