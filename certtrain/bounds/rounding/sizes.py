"""The rule by which each kind of operation passes rounding errors on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from math import isinf

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.base import Box
from certtrain.bounds.rounding.terms import TERMS, largest_constant, offset_size
from certtrain.bounds.rounding.units import (
    DOUBLE,
    FLOOR,
    LARGEST,
    LARGEST_DOUBLE,
    SINGLE,
    TINY,
    UPWARD,
    gamma,
)
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Activation, Add, Input, LinearMap, Op, Values
from certtrain.networks.rules import Propagation, Rules

# Roundings beside the sums of one operation: midpoints and radii of intervals, ends from both, two parts that are
# added, an activation's lines, and the addition of a constant.
BESIDE = 32
# Bounds are made of at most so many results of which each is off by gamma times the absolute values: a row and its
# negative, twice the middle of a zonotope, the part from boxes.
PARTS = 4


@dataclass(frozen=True)
class Sizes:
    """What is known of one operation's output.

    Attributes:
        value: Bound of its absolute value in float32, [batch, *shape].
        error: How far that may be from what the operation, and those before it back to the last activations, make of
            the activations' values without rounding, [batch, *shape].
        paths: Sum of the absolute values of all products that a bound of it is the sum of, [1, *shape]: whatever was
            chosen of the lines around activations, and for all images.
        terms: Rounded operations that lead from the input to it, or from it to the input.
        widest: Elements of the largest output so far, over which sums may go once.
        finite: Whether float32 cannot have overflowed so far, [batch].
    """

    value: Tensor
    error: Tensor
    paths: Tensor
    terms: int
    widest: int
    finite: Tensor

    @property
    def own_factor(self) -> float:
        """How much of `paths` a bound that was computed in float64 may be off by."""
        return self.factor_after(0)

    def factor_after(self, further: int) -> float:
        """The same for a row that so many more rounded operations have led to."""
        return PARTS * gamma(self.terms + self.widest + BESIDE + further, DOUBLE)

    @property
    def slack(self) -> Tensor:
        """What bounds of the output must be widened by, [batch, *shape]."""
        return (self.error + self.own_factor * self.paths) * UPWARD


def size(x: Interval) -> Tensor:
    """Largest absolute value of an interval's numbers."""
    return torch.maximum(x.lower.abs(), x.upper.abs())


@dataclass(frozen=True)
class _Rounded:
    values: Values
    box: Box
    assumed: Mapping[int, Interval]
    slopes: Mapping[int, Tensor]
    # Additions where rows of several readers meet, and of what each operation adds to a bound: none of the sums below
    # counts them, and a path may have all of them on it.
    meeting: int

    def input(self, index: int, op: Input) -> Sizes:
        value = size(Interval(self.box.lower, self.box.upper))
        fits = ~(value.flatten(1) > LARGEST).any(1)
        return Sizes(
            value, torch.full_like(value, TINY), value.amax(0, keepdim=True), BESIDE + self.meeting, op.size, fits
        )

    def linear(self, index: int, op: LinearMap, x: Sizes) -> Sizes:
        terms = TERMS.of(index, op)(op)
        offset, constant = offset_size(op, self.values), largest_constant(op, self.values)
        share, countless = gamma(terms.forward, SINGLE), isinf(gamma(terms.forward, SINGLE))
        share = 1.0 if countless else share
        charged = x.error + share * x.value
        if index in self.assumed:
            error, reached = op.forward_abs(self.values, charged), None
        else:
            error, reached = op.forward_abs(self.values, torch.cat([charged, x.value])).chunk(2)
        paths = op.forward_abs(self.values, x.paths)
        if offset is not None:
            error = error + max(share, 2 * SINGLE) * offset
            paths, reached = paths + offset, None if reached is None else reached + offset
        if terms.forward:
            # What underflows: each product and sum, and a factor that was taken for zero; further sums round it, too.
            largest = x.value.flatten(1).amax(1).reshape(-1, *[1] * len(op.shape))
            error = error + (1 + share) * terms.forward * TINY * (2 + largest + constant.to(largest.device))
        # Sums of absolute values on their way, which no partial sum exceeds.
        fits = x.finite & ~(error.flatten(1) / share > LARGEST).any(1) if terms.forward else x.finite
        done = replace(x, error=error, paths=paths, terms=x.terms + terms.forward + terms.backward, finite=fits)
        return self.finished(index, op, done, reached, countless | (constant > LARGEST).to(fits.device))

    def add(self, index: int, op: Add, *terms: Sizes) -> Sizes:
        share = gamma(len(terms) + 1, SINGLE)
        reached = reduce(torch.add, [x.value for x in terms])
        error = reduce(torch.add, [x.error for x in terms]) + share * reached + (1 + share) * len(terms) * TINY
        paths = reduce(torch.add, [x.paths for x in terms])
        count = max(x.terms for x in terms) + len(terms)
        finite = reduce(torch.logical_and, [x.finite for x in terms])
        widest = max(x.widest for x in terms)
        return self.finished(index, op, Sizes(reached, error, paths, count, widest, finite), reached)

    def activation(self, index: int, op: Activation, x: Sizes) -> Sizes:
        function, z = op.function, self.assumed[op.inputs[0]]
        image = size(function.image(z))
        error = function.evaluation_error(z, SINGLE) + 2 * TINY
        paths = function.lines_size(x.paths, self.slopes.get(index))
        done = replace(x, error=error.expand_as(image), paths=paths)
        return self.finished(index, op, done, image)

    def finished(self, index: int, op: Op, x: Sizes, reached: Tensor | None, overflow: Tensor | None = None) -> Sizes:
        """With what is the same for all kinds.

        Args:
            index: The operation.
            op: The operation.
            x: All but the value.
            reached: Bound of its value without its error; None where bounds of it are assumed.
            overflow: Whether one of its constants is too large, a scalar.
        """
        value = size(self.assumed[index]) if reached is None else (reached + x.error) * UPWARD
        if reached is not None and index in self.assumed:
            value = torch.minimum(value, size(self.assumed[index]))
        # A NaN is not too large: it stays, and nothing that is made of it is positive.
        large = (value.flatten(1) > LARGEST).any(1) | (x.error.flatten(1) > LARGEST).any(1)
        large = large if overflow is None else large | overflow
        # What is given up has finite errors from here on: they reach sums over all images of a batch.
        keep = large.reshape(-1, *[1] * len(op.shape))
        value, error = (y.where(~keep, 0.0) for y in (value, x.error * UPWARD))
        paths = (x.paths + error.amax(0, keepdim=True)) * UPWARD + FLOOR
        large = large | (paths > LARGEST_DOUBLE).any()
        widest = max(x.widest, op.size)
        paths = paths.clamp(max=LARGEST_DOUBLE)
        return Sizes(value, error, paths, x.terms + BESIDE, widest, x.finite & ~large)


SIZES: Rules[Callable[..., Sizes]] = Rules(
    "bounds of rounding errors",
    {Input: _Rounded.input, Add: _Rounded.add, Activation: _Rounded.activation, LinearMap: _Rounded.linear},
)


def propagate_sizes(
    graph: Graph, values: Values, box: Box, assumed: Mapping[int, Interval], slopes: Mapping[int, Tensor]
) -> list[Sizes]:
    """Of every operation, in order.

    Args:
        graph: The network.
        values: Its parameters and buffers, float64.
        box: Its inputs, float64.
        assumed: Operation that an activation reads -> bounds of its output in float32.
        slopes: Activation -> lower slopes that are chosen, of any shape.
    """
    meeting = sum(len(op.inputs) + 2 for op in graph.ops)
    return Propagation(graph.ops, SIZES, _Rounded(values, box, assumed, slopes, meeting)).all()
