"""Exp-IBP (De Palma et al., ICLR 2024): a geometric mean of the adversarial and the verified loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import Prepared
from certtrain.losses.expressive import Expressive
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.networks.graph import Params


def _log(loss: Tensor) -> Tensor:
    """Its logarithm; a loss that has vanished has no derivative left, rather than an infinite one."""
    return loss.clamp(min=torch.finfo(loss.dtype).tiny).log()


@dataclass(frozen=True, kw_only=True)
class ExpIbp(Expressive):
    """(robust cross-entropy)^α · (cross-entropy at attacked points)^(1 - α)."""

    alpha: float = 0.1

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`; what has no weight is not computed."""
        if self.alpha == 0:
            return problem.cross_entropy(params, prepared["points"])
        verified = robust_cross_entropy(problem.lower_margins(params))
        if self.alpha == 1:
            return verified
        adversarial = problem.cross_entropy(params, prepared["points"])
        return (self.alpha * _log(verified) + (1 - self.alpha) * _log(adversarial)).exp()
