"""Where a loss jumps along segments in the space of weights.

A jump is a difference that does not shrink with the interval: intervals in which the loss changes by more than its
slopes at both ends explain are halved, always towards the half that the slopes explain less, until float64 has no
number between their ends. Kinks and curvature are explained better and better on the way and drop out; what is left
jumps. A jump splits its interval in two, which are searched in turn, until no further one is found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.analysis.directions import length, scaled
from certtrain.analysis.surface import Plane, values
from certtrain.gradients import LossFunction
from certtrain.gradients.noise import GaussianNoise
from certtrain.networks.graph import Params

# Positions [points], float64 -> values [points].
Function = Callable[[Tensor], Tensor]

# Changes that are no more than rounding makes of a loss: times 1 + its size.
TOLERANCE = 1e-9
# Slopes are differences over this part of an interval.
STEP = 1e-3
# Parts of the way: float64 tells no more apart, and as much around a jump is not searched again, where rounding of
# single weights may cross it several times.
RESOLUTION = 2.0**-52
MARGIN = 1e-11


@dataclass(frozen=True)
class Jump:
    """Where a function jumps.

    Attributes:
        position: The last float64 before it.
        size: The value behind it minus the value before it.
    """

    position: float
    size: float


@dataclass(frozen=True)
class Continuity:
    """What was found along some segments.

    Attributes:
        jumps: Of each segment, in order of their positions, in units of the segment's length.
        length: Of one segment relative to ‖θ‖.
    """

    jumps: tuple[tuple[Jump, ...], ...]
    length: float

    @property
    def count(self) -> int:
        """On all segments."""
        return sum(map(len, self.jumps))

    @property
    def rate(self) -> float:
        """Jumps per ‖θ‖ of way in a random direction."""
        return self.count / (len(self.jumps) * self.length)

    @property
    def largest(self) -> float:
        """Size of the largest one; zero where there is none."""
        return max((abs(jump.size) for segment in self.jumps for jump in segment), default=0.0)

    @property
    def variation(self) -> float:
        """Sum of the sizes per ‖θ‖ of way: what a mean of gradients misses of how much the loss moves."""
        return sum(abs(jump.size) for segment in self.jumps for jump in segment) / (len(self.jumps) * self.length)


def continuity(
    loss: LossFunction, params: Params, segments: int, relative_length: float, intervals: int, seed: int, strategy: str
) -> Continuity:
    """Searches random segments around the weights.

    Args:
        loss: What may jump.
        params: θ, float64: the middle of every segment.
        segments: How many; directions are uniform.
        relative_length: Of each, in units of ‖θ‖.
        intervals: Into which each is cut at first; two jumps in one that cancel each other may be missed.
        seed: Of the directions.
        strategy: See `gradients.evaluate`.
    """
    found = []
    for number in range(segments):
        drawn = {k: e[0] for k, e in GaussianNoise(seed, 1.0).sample(params, number, range(1)).items()}
        along = scaled(drawn, relative_length * length(params) / length(drawn))
        found.append(find_jumps(on_line(loss, params, along, strategy), -0.5, 0.5, intervals))
    return Continuity(tuple(found), relative_length)


def on_line(loss: LossFunction, params: Params, along: Params, strategy: str) -> Function:
    """S -> the loss at θ + s · along."""
    return lambda s: values(loss, Plane(params, [along], s[:, None]), strategy).mean.to(s)


def find_jumps(function: Function, start: float, end: float, intervals: int) -> tuple[Jump, ...]:
    """All jumps of a function that the search meets, in order.

    Args:
        function: Piecewise smooth, with finite values.
        start: Where the search begins.
        end: Where it ends.
        intervals: Into which the way is cut at first. A jump that is smaller than what third derivatives make of one
            (width³ / 12 times as much) may be missed.
    """
    knots = torch.linspace(start, end, intervals + 1, dtype=torch.float64)
    at_knots, way = function(knots), end - start
    open_ = _Intervals(knots[:-1], knots[1:], at_knots[:-1], at_knots[1:])
    found: list[Jump] = []
    while len(open_.left):
        ends, origin = _narrowed(function, open_, RESOLUTION * way)
        sizes = (ends.after - ends.before).tolist()
        found += [Jump(position, size) for position, size in zip(ends.left.tolist(), sizes, strict=True)]
        open_ = _both_sides(function, open_.only(origin), ends, MARGIN * way)
    return tuple(sorted(found, key=lambda jump: jump.position))


@dataclass(frozen=True)
class _Intervals:
    """Intervals and the values at their ends, each [intervals]."""

    left: Tensor
    right: Tensor
    before: Tensor
    after: Tensor

    def only(self, which: Tensor) -> _Intervals:
        """Some of them, by a mask or by their numbers."""
        return _Intervals(self.left[which], self.right[which], self.before[which], self.after[which])

    @property
    def width(self) -> Tensor:
        """Of each."""
        return self.right - self.left


def _both_sides(function: Function, whole: _Intervals, jumps: _Intervals, margin: float) -> _Intervals:
    """What is left of intervals on both sides of the jump in each."""
    stop, go_on = jumps.left - margin, jumps.right + margin
    at_stop, at_go_on = function(torch.cat([stop, go_on])).chunk(2) if len(stop) else (stop, stop)
    sides = _Intervals(
        torch.cat([whole.left, go_on]),
        torch.cat([stop, whole.right]),
        torch.cat([whole.before, at_go_on]),
        torch.cat([at_stop, whole.after]),
    )
    return sides.only(sides.width > 0)


def _unexplained(before: Tensor, after: Tensor, width: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """What the slopes at both ends do not explain of a difference: third derivatives, kinks and jumps."""
    return (after - before - width * (first + last) / 2).abs()


def _narrowed(function: Function, at: _Intervals, resolution: float) -> tuple[_Intervals, Tensor]:
    """Halves intervals, all at once, as long as something in them is unexplained; and numbers those that are left."""
    step = STEP * at.width
    inner, outer = function(torch.cat([at.left + step, at.right - step])).chunk(2)
    first, last = (inner - at.before) / step, (at.after - outer) / step
    origin = torch.arange(len(at.left))
    while True:
        unexplained = _unexplained(at.before, at.after, at.width, first, last)
        keep = unexplained > TOLERANCE * (1 + torch.maximum(at.before.abs(), at.after.abs()))
        at, first, last, origin = at.only(keep), first[keep], last[keep], origin[keep]
        middle = (at.left + at.right) / 2
        inside = (middle > at.left) & (middle < at.right) & (at.width > resolution)
        if not bool(inside.any()):
            return at, origin
        value, slope, half = function(middle), (first + last) / 2, at.width / 2
        in_first = _unexplained(at.before, value, half, first, slope) >= _unexplained(
            value, at.after, half, slope, last
        )
        # Where slopes change evenly, that is the one in the middle. Where they do not, it matters less with every half.
        first, last = torch.where(in_first, first, slope), torch.where(in_first, slope, last)
        at = _Intervals(
            torch.where(in_first, at.left, middle),
            torch.where(in_first, middle, at.right),
            torch.where(in_first, at.before, value),
            torch.where(in_first, value, at.after),
        )
