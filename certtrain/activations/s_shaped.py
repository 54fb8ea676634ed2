"""Functions that are convex up to zero and concave from there on, symmetric about that point: sigmoid, tanh.

A line of any slope touches such a function at two points that a formula gives, so that its offset is known: lines are
sound whatever their slope. How well a tangent from an end of the interval was found decides only how tight they are.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import reduce

import torch
from torch import Tensor

from certtrain.activations.base import Unary
from certtrain.activations.interval import Interval

# Halvings of the interval that holds a tangent's point, and Newton's steps after them. A fifth of them in error changes
# slopes by less than a thousandth.
HALVINGS, STEPS = 5, 2
# Rounding errors of one evaluation of f(z) - slope · z, in units of the last place of its terms.
ROUNDING = 4.0


class SShaped(Unary):
    """An increasing function f with f(-z) - f(0) = f(0) - f(z), concave for z > 0."""

    @property
    def slope_range(self) -> tuple[float, float]:
        """See `Unary`: it is steepest at zero."""
        return 0.0, self.steepest

    @property
    @abstractmethod
    def steepest(self) -> float:
        """f'(0)."""

    @abstractmethod
    def second_derivative(self, z: Tensor) -> Tensor:
        """f''(z)."""

    @abstractmethod
    def touching(self, slope: Tensor) -> Tensor:
        """The z >= 0 with f'(z) = slope; infinity where the slope is not positive, 0 where it is larger than f'(0)."""

    def undecided(self, z: Interval) -> Tensor:
        """See `Activation`: everywhere but on points."""
        return z.lower < z.upper

    def offsets(self, z: Interval, slope: Tensor) -> Interval:
        """See `Unary`; rounded outwards."""
        # At such a point the offset does not change with it: no derivative goes through.
        at = self.touching(slope.detach())
        below, above = (torch.minimum(torch.maximum(x, z.lower), z.upper) for x in (-at, at))
        ends = [self._offset(x, slope) for x in (z.lower, z.upper)]
        least = reduce(torch.minimum, [*ends, self._offset(below, slope)])
        largest = reduce(torch.maximum, [*ends, self._offset(above, slope)])
        size = 1 + slope.detach().abs() * torch.maximum(z.lower.detach().abs(), z.upper.detach().abs())
        slack = ROUNDING * torch.finfo(size.dtype).eps * size
        return Interval(least - slack, largest + slack)

    def _offset(self, x: Tensor, slope: Tensor) -> Tensor:
        return self(x) - slope * x

    def upper_hull(self, z: Interval) -> Tensor:
        """See `Unary`: from the lower end a straight line up to a tangent's point, from there on the function."""
        crossing = (z.lower < 0) & (z.upper > 0)
        tangent = self._tangent_from(torch.where(crossing, z.lower, -1.0))
        curved = self.derivative(torch.where(crossing, torch.maximum(z.center, tangent), z.center))
        return torch.where((z.lower >= 0) | (crossing & (tangent < z.upper)), curved, self.chord(z))

    def lower_hull(self, z: Interval) -> Tensor:
        """See `Unary`: the same, turned by half a circle."""
        return self.upper_hull(-z)

    def _tangent_from(self, end: Tensor) -> Tensor:
        """The point t > 0 at which a line through the function at `end` < 0 touches it; it is not beyond -end."""
        with torch.no_grad():
            low, high = torch.zeros_like(end), -end
            for _ in range(HALVINGS):
                at = (low + high) / 2
                beyond = self._excess(at, end) < 0
                low, high = torch.where(beyond, low, at), torch.where(beyond, at, high)
            at = (low + high) / 2
            for _ in range(STEPS):
                at = torch.minimum(torch.maximum(at - self._excess(at, end) / self._change(at, end), low), high)
        # One more step that derivatives go through: that of an implicit function. On very long intervals, where the
        # function has no curvature left, it could lead anywhere.
        step = self._excess(at, end) / self._change(at, end).detach()
        return torch.minimum(torch.maximum(at - step, torch.zeros_like(end)), -end)

    def _excess(self, at: Tensor, end: Tensor) -> Tensor:
        """How much the tangent at a point lies below the function at the end: falls from there to zero at its point."""
        return self.derivative(at) * (at - end) - (self(at) - self(end))

    def _change(self, at: Tensor, end: Tensor) -> Tensor:
        """Its derivative, never zero."""
        tiny = torch.finfo(at.dtype).tiny
        return (self.second_derivative(at) * (at - end)).clamp(max=-tiny)
