"""Functions made of a few straight pieces."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce
from itertools import combinations

import torch
from torch import Tensor

from certtrain.activations.base import Unary
from certtrain.activations.interval import Interval


class PiecewiseLinear(Unary):
    """A continuous function that is linear between knots."""

    @property
    @abstractmethod
    def knots(self) -> tuple[float, ...]:
        """Where the slope changes, ascending."""

    @property
    @abstractmethod
    def piece_slopes(self) -> tuple[float, ...]:
        """Slopes before, between and after the knots."""

    @property
    def slope_range(self) -> tuple[float, float]:
        """See `Unary`."""
        return min(self.piece_slopes), max(self.piece_slopes)

    def derivative(self, z: Tensor) -> Tensor:
        """See `Unary`; at a knot that of the piece after it."""
        slope = torch.full_like(z, self.piece_slopes[0])
        for knot, after in zip(self.knots, self.piece_slopes[1:], strict=True):
            slope = torch.where(z >= knot, after, slope)
        return slope

    def image(self, z: Interval) -> Interval:
        """See `Activation`; also where it decreases."""
        values = [self(x) for x in self._corners(z)]
        return Interval(_least(values), _largest(values))

    def undecided(self, z: Interval) -> Tensor:
        """See `Activation`."""
        return reduce(torch.logical_or, [(z.lower < knot) & (z.upper > knot) for knot in self.knots])

    def offsets(self, z: Interval, slope: Tensor) -> Interval:
        """See `Unary`: a line is furthest away at a knot or an end."""
        values = [self(x) - slope * x for x in self._corners(z)]
        return Interval(_least(values), _largest(values))

    def upper_hull(self, z: Interval) -> Tensor:
        """See `Unary`."""
        return self._hull(z, sign=1.0)

    def lower_hull(self, z: Interval) -> Tensor:
        """See `Unary`."""
        return self._hull(z, sign=-1.0)

    def _corners(self, z: Interval) -> list[Tensor]:
        """The ends of the interval, and its knots: those outside stand at an end."""
        inside = [torch.minimum(torch.maximum(z.lower, torch.full_like(z.lower, k)), z.upper) for k in self.knots]
        return [z.lower, *inside, z.upper]

    def _hull(self, z: Interval, sign: float) -> Tensor:
        """The hull at the midpoint is the highest (lowest) of all chords over it."""
        corners, middle = self._corners(z), z.center
        slope, best = self.chord(z), None
        for a, b in combinations(corners, 2):
            # Strictly after the left end: where the midpoint is a corner, the piece before it counts.
            usable = (a < middle) & (middle <= b)
            through = self.chord(Interval(a, b))
            height = sign * (self(a) + through * (middle - a))
            height = torch.where(usable, height, -torch.inf)
            if best is None:
                slope, best = torch.where(usable, through, slope), height
            else:
                slope, best = torch.where(height > best, through, slope), torch.maximum(best, height)
        # Where it is linear, the piece itself and not what rounding makes of a chord.
        return torch.where(self.undecided(z), slope, self.derivative(middle) + 0 * (z.upper - z.lower))


def _least(values: Sequence[Tensor]) -> Tensor:
    return reduce(torch.minimum, values)


def _largest(values: Sequence[Tensor]) -> Tensor:
    return reduce(torch.maximum, values)
