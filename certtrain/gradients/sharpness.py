"""Sharpness-aware minimisation (Foret et al., ICLR 2021): the gradient where the loss is highest nearby, about.

g = ∇L(θ + ρ · ∇L(θ) / |∇L(θ)|)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from certtrain.errors import ConfigError
from certtrain.gradients.backprop import differentiate
from certtrain.gradients.base import ALONE, Estimate, GradientEstimator, LossFunction, State
from certtrain.gradients.ranks import Ranks
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class SharpnessAware(GradientEstimator):
    """The plain gradient, taken a step of length ρ up the plain gradient.

    What a loss prepares at the centre, such as attacked points, counts at both places. On several ranks the step is
    that of the whole batch.

    Attributes:
        rho: ρ, the length of the step in the norm of all weights together.

    Raises:
        ConfigError: If it is no positive number.
    """

    rho: float

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise ConfigError(f"sam.rho must be a positive number, got {self.rho}")

    @property
    def evaluations(self) -> int:
        """The centre and the place uphill."""
        return 2

    @property
    def splits(self) -> Literal["population", "batch"]:
        """There is no population."""
        return "batch"

    @property
    def perturbs(self) -> bool:
        """The loss that is reported is that of the centre."""
        return False

    @property
    def unbiased(self) -> bool:
        """It is the gradient of the loss at another place."""
        return False

    def estimate(
        self,
        loss: LossFunction,
        params: Params,
        generation: int,
        state: State | None = None,
        ranks: Ranks = ALONE,
    ) -> Estimate:
        """See `GradientEstimator.estimate`; where the gradient vanishes, there is no way up and the centre counts."""
        value, own = differentiate(loss, params)
        slope, value = ranks.sum(own), ranks.reduce(value)
        norm = torch.stack([torch.linalg.vector_norm(g) for g in slope.values()]).norm()
        length = torch.where(norm > 0, self.rho / norm, torch.zeros_like(norm))
        higher, gradient = differentiate(loss, {name: p + length * slope[name] for name, p in params.items()})
        rise = float(ranks.reduce(higher) - value)
        return Estimate(ranks.sum(gradient), value, {"sharpness": rise})
