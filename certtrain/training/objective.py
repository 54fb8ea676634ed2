"""What training minimises, and how it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from certtrain.bounds.base import Relaxation
from certtrain.losses.base import Loss
from certtrain.training.schedules import Ramp


@dataclass(frozen=True)
class Validation:
    """By which bounds validation certifies.

    Attributes:
        name: Of the relaxation, for the record.
        relaxation: Certifies held-out images; None: the relaxation that trains certifies all of them.
        images: The first so many are certified by it; None for all.
    """

    name: str
    relaxation: Relaxation | None = None
    images: int | None = None

    def __str__(self) -> str:
        """For people."""
        some = "" if self.relaxation is None or self.images is None else f" (the first {self.images:,} images)"
        return f"by {self.name}{some}"

    def share(self, place: int, count: int) -> int:
        """How many of so many images are certified, of which the first has this place among all held-out ones."""
        if self.relaxation is None or self.images is None:
            return count
        return min(max(self.images - place, 0), count)


BY_TRAINING = Validation("training")


@dataclass(frozen=True)
class Objective:
    """What is minimised, and how it changes over the epochs.

    Attributes:
        relaxation: Bounds the margins in training.
        loss: Made of these bounds.
        target_eps: Radius that validation certifies, in pixel units.
        clip: Range of legal pixels.
        eps: Radius that is trained for over the epochs; recipes let it end above the target.
        natural_weight: Weight κ of the natural loss over the epochs.
        seed: Of what a loss draws.
        validation: By which bounds validation certifies.
        forwards: See `Problem`; validation evaluates in full precision.
    """

    relaxation: Relaxation
    loss: Loss
    target_eps: float
    clip: tuple[float, float]
    eps: Ramp
    natural_weight: Ramp
    seed: int = 0
    validation: Validation = BY_TRAINING
    forwards: torch.dtype | None = None


@dataclass(frozen=True)
class Optimization:
    """How parameters move along an estimated gradient.

    Attributes:
        optimizer: Parameters -> optimizer.
        scheduler: Optimizer -> learning-rate scheduler, stepped once per optimizer step.
        clip_norm: Largest norm of a gradient; None leaves it.
        accumulate: Parts of a batch that are differentiated one after the other.
    """

    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler]
    clip_norm: float | None = None
    accumulate: int = 1
