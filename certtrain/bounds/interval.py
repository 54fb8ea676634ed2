"""Interval propagation: bounds of every operation from bounds of its inputs (centre and radius through |W|)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.base import Box
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Add, Input, LinearMap, ReLU, Values


@dataclass(frozen=True)
class Interval:
    """Lower and upper bounds of one operation's output, each [batch, *shape]."""

    lower: Tensor
    upper: Tensor

    @property
    def center(self) -> Tensor:
        """Midpoint."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return (self.upper - self.lower) / 2

    def intersect(self, other: Interval) -> Interval:
        """The tighter of both, element by element. NaN in either stays NaN."""
        return Interval(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    @staticmethod
    def around(center: Tensor, radius: Tensor) -> Interval:
        """From the midpoint and half the width."""
        return Interval(center - radius, center + radius)

    def map(self, function: Callable[[Tensor], Tensor]) -> Interval:
        """The same function of both."""
        return Interval(function(self.lower), function(self.upper))

    def __add__(self, other: Interval) -> Interval:
        """Bounds of sums."""
        return Interval(self.lower + other.lower, self.upper + other.upper)


def linear_interval(op: LinearMap, values: Values, x: Interval) -> Interval:
    """Y = W x + b: centre through W, radius through |W|."""
    return Interval.around(op.forward(values, x.center), op.forward_abs(values, x.radius))


def propagate_intervals(graph: Graph, values: Values, box: Box, last: int | None = None) -> list[Interval]:
    """Interval bounds of every operation of the network, in order; up to `last`, where it is given."""
    results: list[Interval] = []
    for op in graph.ops if last is None else graph.ops[: last + 1]:
        match op:
            case Input():
                results.append(Interval(box.lower, box.upper))
            case ReLU():
                results.append(results[op.inputs[0]].map(torch.relu))
            case Add():
                results.append(results[op.inputs[0]] + results[op.inputs[1]])
            case LinearMap():
                results.append(linear_interval(op, values, results[op.inputs[0]]))
    return results
