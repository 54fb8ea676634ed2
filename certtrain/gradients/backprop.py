"""The plain gradient: automatic differentiation of the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from certtrain.gradients.base import Estimate, GradientEstimator, LossFunction
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class Backprop(GradientEstimator):
    """g = ∇L(θ) by reverse-mode differentiation; a parameter that the loss does not use has gradient zero."""

    @property
    def evaluations(self) -> int:
        """One: the centre."""
        return 1

    def estimate(self, loss: LossFunction, params: Params, generation: int) -> Estimate:
        """See `GradientEstimator.estimate`."""
        with torch.enable_grad():
            leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
            value = loss(leaves)
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        gradient = {
            name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(leaves.items(), found, strict=True)
        }
        return Estimate(gradient, value.detach())
