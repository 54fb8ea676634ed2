"""Interval propagation: bounds of every operation from bounds of its inputs (centre and radius through |W|)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from certtrain.activations import Interval
from certtrain.bounds.analysis import NOTHING, Given
from certtrain.bounds.base import Box
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Activation, Add, Input, LinearMap, Op, Values
from certtrain.networks.rules import Propagation, Rules


@dataclass(frozen=True)
class _Intervals:
    values: Values
    box: Box
    given: Given


def linear_interval(op: LinearMap, values: Values, x: Interval) -> Interval:
    """Y = W x + b: centre through W, radius through |W|."""
    return Interval.around(op.forward(values, x.center), op.forward_abs(values, x.radius))


def _refined(rule: Callable[..., Interval]) -> Callable[..., Interval]:
    """A rule whose result is intersected with what is given of the same operation."""

    def apply(context: _Intervals, index: int, op: Op, *read: Interval) -> Interval:
        return context.given.refine(index, rule(context, index, op, *read))

    return apply


INTERVALS: Rules[Callable[..., Interval]] = Rules(
    "interval propagation",
    {
        Input: lambda context, index, op: Interval(context.box.lower, context.box.upper),
        Add: _refined(lambda context, index, op, *terms: reduce(operator.add, terms)),
        Activation: _refined(lambda context, index, op, z: op.function.image(z)),
        LinearMap: _refined(lambda context, index, op, x: linear_interval(op, context.values, x)),
    },
)


def propagate_intervals(
    graph: Graph, values: Values, box: Box, last: int | None = None, given: Given = NOTHING
) -> list[Interval]:
    """Interval bounds of every operation of the network, in order; up to `last`, where it is given.

    Args:
        graph: The network.
        values: Parameters and buffers.
        box: Its inputs.
        last: The last operation that is asked for.
        given: What is known of operations already.
    """
    propagation = Propagation(graph.ops, INTERVALS, _Intervals(values, box, given))
    propagation.at(len(graph.ops) - 1 if last is None else last)
    return propagation.found
