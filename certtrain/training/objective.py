"""What training minimises, and how it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from certtrain.bounds.base import Relaxation
from certtrain.losses.base import Loss
from certtrain.training.schedules import Ramp


@dataclass(frozen=True)
class Objective:
    """What is minimised, and how it changes over the epochs.

    Attributes:
        relaxation: Bounds the margins, in training and validation.
        loss: Made of these bounds.
        target_eps: Radius that validation certifies, in pixel units.
        clip: Range of legal pixels.
        eps: Radius that is trained for over the epochs; recipes let it end above the target.
        natural_weight: Weight κ of the natural loss over the epochs.
        seed: Of what a loss draws.
    """

    relaxation: Relaxation
    loss: Loss
    target_eps: float
    clip: tuple[float, float]
    eps: Ramp
    natural_weight: Ramp
    seed: int = 0


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
