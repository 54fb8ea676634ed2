"""Linear relaxations of a ReLU on an interval: two lines between which it lies.

Upper line: the chord u/(u-l) · (z-l). Lower line: slope · z with a slope in [0, 1] chosen by a rule
(CROWN, Zhang et al., arXiv 1811.00866; DeepPoly, Singh et al., POPL 2019). A stable ReLU is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from certtrain.bounds.interval import Interval

SlopeRule = Literal["adaptive", "zero", "one", "parallel"]


@dataclass(frozen=True)
class ReluLines:
    """Lines around a ReLU [batch, *shape]: lower_slope · z <= relu(z) <= (lower_slope + gap) · z + upper_intercept.

    The gap is what following both lines takes, and is zero where a neuron is stable.
    """

    lower_slope: Tensor
    gap: Tensor
    upper_intercept: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> ReluLines:
        """The same function of all three."""
        return ReluLines(function(self.lower_slope), function(self.gap), function(self.upper_intercept))


def relax_relu(z: Interval, rule: SlopeRule) -> ReluLines:
    """Lines for pre-activations in `z`.

    Args:
        z: Bounds of the pre-activations.
        rule: Slope of the lower line of a crossing neuron: "zero", "one", "adaptive" (the smaller area: 1 iff u > -l,
            so a tie takes 0), or "parallel" to the upper line (Fast-Lin, Weng et al., ICML 2018).
    """
    above, below = z.upper.clamp(min=0), (-z.lower).clamp(min=0)
    width = above + below
    # Where both are zero a width of one: a NaN in a branch that `where` discards would still reach the gradient.
    width = torch.where(width == 0, 1.0, width)
    # Zero and one exactly where a neuron is stable. A NaN stays NaN, and a width that overflows becomes it, since the
    # chord would be zero.
    chord = above / width + 0 * width
    match rule:
        case "adaptive":
            lower = above > below
        case "zero":
            lower = (above > 0) & (below == 0)
        case "one":
            lower = above > 0
        case "parallel":
            return ReluLines(chord, torch.zeros_like(chord), chord * below)
    lower = lower.to(width.dtype)
    return ReluLines(lower, chord - lower, chord * below)
