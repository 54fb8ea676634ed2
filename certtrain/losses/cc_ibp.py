"""CC-IBP (De Palma et al., ICLR 2024): the loss of a convex combination of attacked and certified margins."""

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


@dataclass(frozen=True, kw_only=True)
class CcIbp(Expressive):
    """Robust cross-entropy of α · certified margins + (1 - α) · margins at attacked points."""

    alpha: float = 0.01

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`; what has no weight is not computed."""
        if self.alpha == 1:
            return robust_cross_entropy(problem.lower_margins(params))
        everywhere = torch.arange(len(problem.inputs), device=problem.inputs.device)
        margins = problem.margins_at(params)(prepared["points"], everywhere)
        if self.alpha > 0:
            margins = self.alpha * problem.lower_margins(params) + (1 - self.alpha) * margins
        return robust_cross_entropy(margins)
