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
        counterexample: Whether one was found and confirmed.
        seconds: Time spent so far.
        margins: As in `Verdict`.
        failures: As in `Verdict`.
    """

    index: int
    label: int
    image: Tensor = field(repr=False)
    eps: float = 0.0
    predicted: int | None = None
    counterexample: bool = False
    seconds: float = 0.0
    margins: dict[str, float | None] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    @property
    def correct(self) -> bool:
        """Whether the image is known to be classified correctly."""
        return self.predicted == self.label

    def add_margin(self, verifier: str, margin: float) -> None:
        """Takes a verifier's smallest margin down; one that is not finite is a failure."""
        self.margins[verifier] = margin if isfinite(margin) else None
        if not isfinite(margin):
            self.failures[verifier] = Failure("error", f"non-finite margin ({margin})")

    def verdict(self) -> Verdict:
        """The one status that the evidence supports.

        A misclassified image is nothing else; a proof and a counterexample outweigh every failure of others;
        then what went wrong is named, a defect before exhausted memory before exhausted time.

        Raises:
            SoundnessError: If there are both a proof and a counterexample.
        """
        known = {name: m for name, m in self.margins.items() if m is not None}
        verified_by = next((name for name, margin in known.items() if margin > 0), None)
        if self.counterexample and verified_by is not None:
            raise SoundnessError(
                f"verifier {verified_by} certified image {self.index} (margin {known[verified_by]:.3g}), "
                "which has a counterexample: its bounds are wrong, and no result of this run can be trusted"
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
        )

    def _status(self, verified_by: str | None) -> Status:
        if self.predicted is not None and not self.correct:
            return "misclassified"
        if self.counterexample:
            return "falsified"
        if verified_by is not None:
            return "verified"
        kinds = {failure.kind for failure in self.failures.values()}
        return next((kind for kind in FAILURES if kind in kinds), "unknown")
