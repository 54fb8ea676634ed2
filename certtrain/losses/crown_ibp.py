"""CROWN-IBP (Zhang et al., ICLR 2020): tight bounds in the beginning, intervals in the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from certtrain.bounds.relaxation.ibp import IBP
from certtrain.losses.base import Prepared
from certtrain.losses.mixed import Mixed
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.networks.graph import Params


@dataclass(frozen=True, kw_only=True)
class TowardsIntervals(Mixed):
    """What goes from the configured relaxation to intervals while eps grows.

    β · relaxation + (1 - β) · intervals, where β goes from `beta_start` to `beta_end` along the ramp of eps. With
    relaxation=crown_ibp and 1 → 0 it is CROWN-IBP as published, with 1 → 1 its variant R.

    Attributes:
        beta_start: β before and at the beginning of the ramp.
        beta_end: β after it.

    Raises:
        ConfigError: If one of them is not in [0, 1].
    """

    beta_start: float = 1.0
    beta_end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("beta_start", self.beta_start, high=1.0)
        check_number("beta_end", self.beta_end, high=1.0)

    def beta(self, problem: Problem) -> float:
        """β at the problem's point of the ramp."""
        done = problem.progress
        return self.beta_end if done == 1 else self.beta_start + (self.beta_end - self.beta_start) * done


def by_intervals(problem: Problem) -> Problem:
    """The same problem, bounded by intervals."""
    return problem if isinstance(problem.relaxation, IBP) else replace(problem, relaxation=IBP())


@dataclass(frozen=True, kw_only=True)
class CrownIBP(TowardsIntervals):
    """Robust cross-entropy of β · margins by the relaxation + (1 - β) · margins by intervals."""

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`; what has no weight is not computed."""
        beta, intervals = self.beta(problem), by_intervals(problem)
        if beta == 0:
            return robust_cross_entropy(intervals.lower_margins(params))
        tight = problem.lower_margins(params)
        if beta < 1:
            tight = beta * tight + (1 - beta) * intervals.lower_margins(params)
        return robust_cross_entropy(tight)
