"""What the recipes of certified training share: a natural part beside the robust one, and a penalty of the weights."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import NOTHING, Loss, Prepared
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.losses.regularisers import shi_penalty
from certtrain.networks.graph import Params


@dataclass(frozen=True, kw_only=True)
class Mixed(Loss):
    """κ · cross-entropy + (1 - κ) · robust loss + l1 · Σ|weights| + shi · (1 - progress) · regularisers.

    κ is the problem's `natural_weight`, `progress` how far its ramp of eps is.

    A subclass says what its robust loss is; it is asked only where there is a box and κ < 1.

    Attributes:
        l1: Weight of the L1 norm of all weight matrices and kernels (biases and batch norm are left out).
        shi: Weight of Shi's regularisers, see `regularisers`; it falls to 0 along the ramp of eps.

    Raises:
        ConfigError: If a weight is negative or no number.
    """

    l1: float = 0.0
    shi: float = 0.0

    def __post_init__(self) -> None:
        check_number("l1", self.l1)
        check_number("shi", self.shi)

    @abstractmethod
    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """The robust loss of each image; see `Loss.per_image`."""

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """What the robust loss needs; see `Loss.prepare`."""
        return NOTHING

    def prepare(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Loss`; what has no weight is not prepared."""
        return self.prepare_robust(problem, params, generation) if problem.natural_weight < 1 else NOTHING

    def per_image(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> Float[Tensor, " batch"]:
        """See `Loss`; what has no weight is not computed."""
        kappa = problem.natural_weight
        total = problem.inputs.new_zeros(len(problem.inputs))
        if kappa > 0:
            natural = F.cross_entropy(problem.logits(params), problem.labels, reduction="none")
            total = total + kappa * natural
        if kappa < 1:
            total = total + (1 - kappa) * self.robust(problem, params, prepared)
        return total

    def penalty(self, params: Params) -> Tensor | float:
        """See `Loss`."""
        return self.l1 * sum(p.abs().sum() for p in params.values() if p.dim() > 1) if self.l1 > 0 else 0.0

    def penalty_of_bounds(self, problem: Problem, params: Params) -> Tensor | float:
        """See `Loss`: Shi's regularisers, during the ramp only."""
        weight = self.shi * (1 - problem.progress)
        return weight * shi_penalty(problem, params).mean() if weight > 0 and problem.eps > 0 else 0.0
