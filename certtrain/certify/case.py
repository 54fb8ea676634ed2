"""What is known of one image while it is being certified, and the verdict that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.certify.soundness import SoundnessError
from certtrain.certify.verdict import FAILURES, Failure, Status, Verdict


def image_digest(image: Float[Tensor, "*shape"]) -> str:
    """16 hexadecimal digits that tell an image from others, by its pixels in float64 and its shape."""
    pixels = image.detach().to(device="cpu", dtype=torch.float64).contiguous()
    # Without the shape, the same numbers laid out in another way would count as the same image.
    return sha256(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes()).hexdigest()[:16]


@dataclass
class Case:
    """One image and the evidence collected so far.

    Attributes:
        index: The image's number in its data set.
        label: Its class.
        image: float64, [*input_shape].
        eps: Radius of its ball.
        predicted: The class that the network gives it; None before that is known and where outputs are not
            finite.
        counterexample: A point of the box, float64, that was confirmed to be misclassified; None if there is none.
        falsified_by: Who found it.
        seconds: Time spent so far.
        stages: Time spent so far by each stage that was asked.
        margins: As in `Verdict`.
        failures: As in `Verdict`.
        remarks: As in `Verdict`.
    """

    index: int
    label: int
    image: Tensor = field(repr=False)
    eps: float = 0.0
    predicted: int | None = None
    counterexample: Tensor | None = field(default=None, repr=False)
    falsified_by: str | None = None
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    margins: dict[str, float | None] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)

    @property
    def correct(self) -> bool:
        """Whether the image is known to be classified correctly."""
        return self.predicted == self.label

    @property
    def settled(self) -> bool:
        """Whether there is a counterexample or a proof."""
        return self.counterexample is not None or any(m is not None and m > 0 for m in self.margins.values())

    def spend(self, stage: str, seconds: float) -> None:
        """Takes down that a stage has worked on the image."""
        self.seconds += seconds
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def falsify(self, stage: str, point: Float[Tensor, "*shape"]) -> None:
        """Takes a confirmed counterexample down; the first one is kept."""
        if self.counterexample is None:
            self.counterexample, self.falsified_by = point, stage

    def add_margin(self, verifier: str, margin: float) -> None:
        """Takes a verifier's smallest margin down; one that is not finite is a failure."""
        self.margins[verifier] = margin if isfinite(margin) else None
        if not isfinite(margin):
            self.failures[verifier] = Failure("error", f"non-finite margin ({margin})")

    def verdict(self, cascade: str = "all") -> Verdict:
        """The one status that the evidence supports.

        A misclassified image is nothing else; a proof and a counterexample outweigh every failure of others;
        then what went wrong is named, a defect before exhausted memory before exhausted time.

        Args:
            cascade: By which the image was led through the stages.

        Raises:
            SoundnessError: If there are both a proof and a counterexample.
        """
        known = {name: m for name, m in self.margins.items() if m is not None}
        verified_by = next((name for name, margin in known.items() if margin > 0), None)
        if self.counterexample is not None and verified_by is not None:
            raise SoundnessError(
                f"verifier {verified_by} certified image {self.index} (margin {known[verified_by]:.3g}), "
                f"of which {self.falsified_by} found a counterexample: its bounds are wrong, and no result of this run "
                "can be trusted"
            )
        status = self._status(verified_by)
        best = max(known.values(), default=None) if verified_by is None else known[verified_by]
        message = "; ".join(f"{stage}: {f.message}" for stage, f in self.failures.items())
        return Verdict(
            self.index,
            self.label,
            self.predicted,
            status,
            verified_by,
            best,
            round(self.seconds, 6),
            dict(self.margins),
            message or None,
            image_digest(self.image),
            dict(self.failures),
            self.eps,
            self.falsified_by if status == "falsified" else None,
            None,
            dict(self.remarks),
            {stage: round(seconds, 6) for stage, seconds in self.stages.items()},
            cascade,
        )

    def _status(self, verified_by: str | None) -> Status:
        if self.predicted is not None and not self.correct:
            return "misclassified"
        if self.counterexample is not None:
            return "falsified"
        if verified_by is not None:
            return "verified"
        kinds = {failure.kind for failure in self.failures.values()}
        return next((kind for kind in FAILURES if kind in kinds), "unknown")
