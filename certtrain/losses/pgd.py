"""Adversarial training (Madry et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from certtrain.losses.adversary import STANDARD, Adversary
from certtrain.losses.base import Prepared
from certtrain.losses.mixed import Mixed
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params


@dataclass(frozen=True, kw_only=True)
class Adversarial(Mixed):
    """κ · cross-entropy + (1 - κ) · cross-entropy at attacked points + l1 · Σ|weights|.

    A lower bound of the worst case: nothing is certified while training.

    Attributes:
        attack: Finds the points.
    """

    attack: Adversary = STANDARD

    @property
    def certifies(self) -> bool:
        """See `Loss`: nothing is bounded."""
        return False

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`."""
        return {"points": self.attack.misclassify(problem, params, generation)}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`."""
        return problem.cross_entropy(params, prepared["points"])
