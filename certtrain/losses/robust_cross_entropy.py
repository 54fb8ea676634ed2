"""Cross-entropy of the worst case: an upper bound of the cross-entropy at every point of the box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.losses.base import NOTHING, Loss, Prepared
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params


def robust_cross_entropy(margins: Float[Tensor, "batch rows"]) -> Float[Tensor, " batch"]:
    """log(1 + Σ_j exp(-m_j)) of lower bounds m of the margins (Wong and Kolter, ICML 2018)."""
    return torch.logsumexp(F.pad(-margins, (1, 0)), dim=-1)


@dataclass(frozen=True)
class RobustCrossEntropy(Loss):
    """κ · cross-entropy + (1 - κ) · robust cross-entropy + l1 · Σ|weights|.

    Attributes:
        l1: Weight of the L1 norm of all weight matrices and kernels (biases and batch norm are left out).

    Raises:
        ConfigError: If l1 is negative or no number.
    """

    l1: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.l1, (int, float)) and 0 <= self.l1 < math.inf):
            raise ConfigError(f"loss.l1 must be a number >= 0, got {self.l1!r}")

    def per_image(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> Float[Tensor, " batch"]:
        """See `Loss`; what has no weight is not computed."""
        kappa = problem.natural_weight
        total = problem.inputs.new_zeros(len(problem.inputs))
        if kappa > 0:
            natural = F.cross_entropy(problem.logits(params), problem.labels, reduction="none")
            total = total + kappa * natural
        if kappa < 1:
            total = total + (1 - kappa) * robust_cross_entropy(problem.lower_margins(params))
        return total

    def penalty(self, params: Params) -> Tensor | float:
        """See `Loss`."""
        return self.l1 * sum(p.abs().sum() for p in params.values() if p.dim() > 1) if self.l1 > 0 else 0.0
