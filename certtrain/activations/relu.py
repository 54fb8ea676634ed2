"""ReLU on an interval.

Upper line: the chord u/(u-l) · (z-l). Lower line: slope · z with a slope in [0, 1] chosen by a rule
(CROWN, Zhang et al., arXiv 1811.00866; DeepPoly, Singh et al., POPL 2019). A stable ReLU is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.activations.base import Activation, Lines, Slopes
from certtrain.activations.interval import Interval


def _relu(inplace: bool = False) -> ReLU:
    return ReLU()


@dataclass(frozen=True)
class ReLU(Activation):
    """max(z, 0)."""

    modules: ClassVar = {nn.ReLU: lambda module: ReLU()}
    functions: ClassVar = dict.fromkeys((torch.relu, torch.relu_, F.relu, F.relu_, "relu", "relu_"), _relu)

    def __call__(self, z: Tensor) -> Tensor:
        """See `Activation`."""
        return torch.relu(z)

    def evaluation_error(self, z: Interval, unit: float) -> Tensor:
        """See `Activation`: it is exact."""
        return torch.zeros_like(z.lower)

    def lines_size(self, size: Tensor, slopes: Tensor | None = None) -> Tensor:
        """See `Activation`: u / (u - l) · (size - l) of the chord is at most the size, since u is."""
        return size

    def undecided(self, z: Interval) -> Tensor:
        """See `Activation`."""
        return (z.lower < 0) & (z.upper > 0)

    def free(self, z: Interval) -> Tensor:
        """See `Activation`."""
        return self.undecided(z)

    def linear_part(self, z: Interval) -> Lines:
        """See `Activation`: one where it is active. A NaN makes a neuron nothing; its values stay NaN in `image`."""
        active = (z.lower >= 0).to(z.lower.dtype)
        none = torch.zeros_like(active)
        return Lines(active, none, none)

    def lines(self, z: Interval, slopes: Slopes) -> Lines:
        """See `Activation.lines`.

        "adaptive" takes slope 1 iff u > -l, so a tie takes 0; "parallel" is Fast-Lin (Weng et al., ICML 2018).
        """
        above, below = z.upper.clamp(min=0), (-z.lower).clamp(min=0)
        width = above + below
        # Where both are zero a width of one: a NaN in a branch that `where` discards would still reach the gradient.
        width = torch.where(width == 0, 1.0, width)
        # Zero and one exactly where a neuron is stable. A NaN stays NaN, and a width that overflows becomes it, since
        # the chord would be zero.
        chord = above / width + 0 * width
        if isinstance(slopes, Tensor):
            lower = torch.where(below == 0, 1.0, slopes.clamp(0, 1)) * (above > 0)
            return Lines(lower, chord - lower, chord * below)
        match slopes:
            case "adaptive":
                lower = above > below
            case "zero":
                lower = (above > 0) & (below == 0)
            case "one":
                lower = above > 0
            case "parallel":
                return Lines(chord, torch.zeros_like(chord), chord * below)
        lower = lower.to(width.dtype)
        return Lines(lower, chord - lower, chord * below)
