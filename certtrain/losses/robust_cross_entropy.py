"""Cross-entropy of the worst case: an upper bound of the cross-entropy at every point of the box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from certtrain.bounds.base import Box
from certtrain.bounds.labels import margin_spec
from certtrain.errors import ConfigError
from certtrain.losses.base import Loss, Problem
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

    def __call__(self, problem: Problem, params: Params) -> Tensor:
        """See `Loss`."""
        kappa = problem.natural_weight if problem.eps > 0 else 1.0
        total = torch.zeros((), dtype=problem.inputs.dtype, device=problem.inputs.device)
        if kappa > 0:
            logits = problem.graph.forward(params, problem.inputs)
            total = total + kappa * F.cross_entropy(logits, problem.labels)
        if kappa < 1:
            total = total + (1 - kappa) * robust_cross_entropy(lower_margins(problem, params)).mean()
        if self.l1 > 0:
            total = total + self.l1 * sum(p.abs().sum() for p in params.values() if p.dim() > 1)
        return total


def lower_margins(problem: Problem, params: Params) -> Float[Tensor, "batch rows"]:
    """Certified lower bounds of the margins of every image's label over all other classes."""
    box = Box.linf(problem.inputs, problem.eps, problem.clip)
    spec = margin_spec(problem.labels, problem.graph.num_outputs)
    return problem.relaxation.bound(problem.graph, params, box, spec, sides="lower").lower
