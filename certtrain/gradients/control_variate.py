"""Control variates: what a gradient explains of the losses of a population, the population need not find out.

For any vector h that does not depend on the noise ε of the pairs, E ε (h·ε) / σ² = h, so that

    ĝ = h + 1/n Σ_i ε_i [(L(θ + ε_i) - L(θ - ε_i)) / 2 - h·ε_i] / σ²

is as unbiased for ∇L_σ as PGPE without it (h = 0). Its variance is about d/n · |∇L_σ - h|² and what curvature adds,
where that of PGPE is about d/n · |∇L_σ|²: a guess that is nearly right takes nearly all of the noise away, and a wrong
one only costs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.gradients.base import ALONE, LossFunction, State
from certtrain.gradients.ranks import Ranks
from certtrain.gradients.statistics import squared_norm
from certtrain.networks.graph import Params

# Numbers of the pairs whose noise a control variate may draw begin here: no population is as large.
OWN_PAIRS = 1 << 40

# Which pairs -> their noise, block by block: name -> [pairs of the block, *shape].
Draw = Callable[[range], Iterable[Params]]


@dataclass(frozen=True)
class Found:
    """What a generation has told of a guess h, on all processes the same.

    Attributes:
        own: |h|².
        noise: Trace of the covariance of h around its mean, given the batch; NaN where that is not known.
        missed: |∇L_σ - h|², debiased, so that it may be negative.
        pairs: n.
    """

    own: float
    noise: float
    missed: float
    pairs: int


class ControlVariate(ABC):
    """Guesses the gradient of the smoothed loss, without the noise of the population."""

    def rehearsing(self) -> ControlVariate:
        """The same at the least cost."""
        return self

    def initial_state(self) -> State:
        """What the first guess continues from."""
        return {}

    @abstractmethod
    def gradients(self, state: State) -> int:
        """How many gradients the next guess takes."""

    @abstractmethod
    def parts(self, loss: LossFunction, params: Params, draw: Draw, state: State, ranks: Ranks = ALONE) -> list[Params]:
        """Guesses that are independent of each other, given the batch; the vector h is their mean.

        Args:
            loss: Of this process's part of the batch, if several divide it.
            params: Name -> centre.
            draw: Noise of pairs from `OWN_PAIRS` on, distributed like that of the population.
            state: What `updated` or `initial_state` returned last.
            ranks: Who has the other parts of the batch.
        """

    def updated(self, state: State, found: Found | None) -> State:
        """What the next guess continues from.

        Args:
            state: What the last one continued from.
            found: What the population told of it; None where it was no number.
        """
        return {}


def joined(parts: list[Params]) -> Params:
    """Name -> [parts, *shape], so that they travel together."""
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def mean_and_noise(parts: Params) -> tuple[Params, float]:
    """h, and the trace of its covariance from how far its halves are apart; NaN for a single part.

    Args:
        parts: See `joined`.
    """
    guess = {name: part.mean(0) for name, part in parts.items()}
    if len(next(iter(parts.values()))) == 1:
        return guess, math.nan
    return guess, squared_norm({name: part[0] - part[1] for name, part in parts.items()}) / 4


def product(guess: Params, block: Params, like: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """h·ε of each pair of a block, in the dtype of the losses; 0 without a guess."""
    if not guess:
        return torch.zeros_like(like)
    parts = [block[name].flatten(1) @ guess[name].flatten().to(block[name].dtype) for name in guess]
    return torch.stack(parts).sum(0).to(like.dtype)
