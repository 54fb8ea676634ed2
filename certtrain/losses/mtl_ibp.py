"""MTL-IBP (De Palma et al., ICLR 2024): a sum of the adversarial and the verified loss."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import Prepared
from certtrain.losses.expressive import Expressive
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.networks.graph import Params


@dataclass(frozen=True, kw_only=True)
class MtlIbp(Expressive):
    """α · robust cross-entropy + (1 - α) · cross-entropy at attacked points."""

    alpha: float = 0.01

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`; what has no weight is not computed."""
        total = problem.inputs.new_zeros(len(problem.inputs))
        if self.alpha > 0:
            total = total + self.alpha * robust_cross_entropy(problem.lower_margins(params))
        if self.alpha < 1:
            total = total + (1 - self.alpha) * problem.cross_entropy(params, prepared["points"])
        return total
