"""The plain gradient: automatic differentiation of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from certtrain.gradients.base import ALONE, Estimate, GradientEstimator, LossFunction, State
from certtrain.gradients.ranks import Ranks
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class Backprop(GradientEstimator):
    """g = ∇L(θ) by reverse-mode differentiation; a parameter that the loss does not use has gradient zero."""

    @property
    def evaluations(self) -> int:
        """One: the centre."""
        return 1

    @property
    def splits(self) -> Literal["population", "batch"]:
        """There is no population."""
        return "batch"

    @property
    def perturbs(self) -> bool:
        """The centre is all there is."""
        return False

    def estimate(
        self,
        loss: LossFunction,
        params: Params,
        generation: int,
        state: State | None = None,
        ranks: Ranks = ALONE,
    ) -> Estimate:
        """See `GradientEstimator.estimate`."""
        value, gradient = differentiate(loss, params)
        return Estimate(ranks.sum(gradient), ranks.reduce(value))


def differentiate(loss: LossFunction, params: Params) -> tuple[Tensor, Params]:
    """The loss and its gradient, both detached."""
    with torch.enable_grad():
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        value = loss(leaves)
        found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    gradient = {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(leaves.items(), found, strict=True)
    }
    return value.detach(), gradient
