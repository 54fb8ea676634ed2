"""Loss fusion (Xu et al., NeurIPS 2020): the loss itself is bounded, by one row instead of one for each class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import Prepared
from certtrain.losses.crown_ibp import TowardsIntervals, by_intervals
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.networks.graph import Params


def chords(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and value at `low` of the chord of exp on [low, high]; the tangent where there is no width."""
    width = high - low
    some = width > 0
    safe = width.where(some, torch.ones_like(width))
    slope = (high.exp() * -torch.expm1(-safe) / safe).where(some, low.exp())
    return slope, low.exp()


@dataclass(frozen=True, kw_only=True)
class LossFusion(TowardsIntervals):
    """log(1 + β · S + (1 - β) · S_I), where S and S_I bound Σ_j exp(-m_j) of the margins m from above.

    S_I is what intervals say of each margin. For S, exp lies below its chord between the interval bounds of a margin,
    so that the sum is bounded by one linear form in the margins, which the configured relaxation bounds. The public
    code (auto_LiRPA's loss fusion) mixes sums in this way, too.
    """

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`; what has no weight is not computed."""
        beta, intervals = self.beta(problem), by_intervals(problem)
        if beta == 0:
            return robust_cross_entropy(intervals.lower_margins(params))
        found = intervals.relaxation.bound(problem.graph, params, problem.box, problem.spec)
        assert found.upper is not None
        low, high = -found.upper, -found.lower
        # Everything is scaled by the largest term, which would overflow.
        largest = high.amax(1, keepdim=True).clamp(min=0).detach()
        slope, at_low = chords(low - largest, high - largest)
        row = (slope[:, :, None] * problem.spec).sum(1, keepdim=True)
        fused = problem.relaxation.bound(problem.graph, params, problem.box, row, sides="lower").lower
        total = beta * ((at_low - slope * low).sum(1) - fused[:, 0])
        if beta < 1:
            total = total + (1 - beta) * (high - largest).exp().sum(1)
        # A sum of exponentials is not negative; rounding of a bound of it may be.
        return largest[:, 0] + ((-largest[:, 0]).exp() + total.clamp(min=0)).log()
