"""Cross-entropy of the worst case: an upper bound of the cross-entropy at every point of the box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import Prepared
from certtrain.losses.mixed import Mixed
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params


def robust_cross_entropy(margins: Float[Tensor, "batch rows"]) -> Float[Tensor, " batch"]:
    """log(1 + Σ_j exp(-m_j)) of lower bounds m of the margins (Wong and Kolter, ICML 2018)."""
    return torch.logsumexp(F.pad(-margins, (1, 0)), dim=-1)


@dataclass(frozen=True, kw_only=True)
class RobustCrossEntropy(Mixed):
    """κ · cross-entropy + (1 - κ) · robust cross-entropy + l1 · Σ|weights|."""

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`."""
        return robust_cross_entropy(problem.lower_margins(params))
