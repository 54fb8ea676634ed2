"""Interval propagation: bounds of every operation from bounds of its inputs (centre and radius through |W|)."""

from __future__ import annotations

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


def linear_interval(op: LinearMap, values: Values, x: Interval) -> Interval:
    """Y = W x + b: centre through W, radius through |W|."""
    center, radius = op.forward(values, x.center), op.forward_abs(values, x.radius)
    return Interval(center - radius, center + radius)


def propagate_intervals(graph: Graph, values: Values, box: Box) -> list[Interval]:
    """Interval bounds of every operation of the network, in order."""
    results: list[Interval] = []
    for op in graph.ops:
        match op:
            case Input():
                results.append(Interval(box.lower, box.upper))
            case ReLU():
                x = results[op.inputs[0]]
                results.append(Interval(torch.relu(x.lower), torch.relu(x.upper)))
            case Add():
                a, b = (results[i] for i in op.inputs)
                results.append(Interval(a.lower + b.lower, a.upper + b.upper))
            case LinearMap():
                results.append(linear_interval(op, values, results[op.inputs[0]]))
    return results
