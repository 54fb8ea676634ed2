"""Standard training: the loss at the unperturbed images."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import NOTHING, Prepared
from certtrain.losses.mixed import Mixed
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params


@dataclass(frozen=True, kw_only=True)
class Natural(Mixed):
    """Cross-entropy + l1 · Σ|weights|, whatever the box: what certified training is compared with."""

    @property
    def certifies(self) -> bool:
        """See `Loss`: nothing is bounded."""
        return False

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`: there is nothing but the natural part."""
        return problem.cross_entropy(params, problem.inputs)

    def per_image(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> Float[Tensor, " batch"]:
        """See `Loss`; both parts are one, which is computed once."""
        return self.robust(problem, params, prepared)
