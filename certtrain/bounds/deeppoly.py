"""DeepPoly / CROWN: back-substitution all the way (Singh et al., POPL 2019; Zhang et al., arXiv 1811.00866)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from certtrain.bounds.backsubstitution import Lines, bound_operation, bound_rows, relu_lines
from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.interval import Interval, propagate_intervals
from certtrain.bounds.slopes import SlopeRule, relax_relu
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import Add, ChannelAffine, LinearMap, ReLU, Reshape, Values


@dataclass(frozen=True)
class DeepPoly(Relaxation):
    """Back-substitution whose intermediate bounds are back-substituted too.

    Attributes:
        lower_slope: Lower line of crossing neurons: adaptive, zero or one.
        intersect: Intersect every intermediate bound with plain interval propagation of the same neuron; False is the
            textbook version. Intersected intermediate bounds are never looser than either of the two.
    """

    lower_slope: SlopeRule = "adaptive"
    intersect: bool = True

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        values = graph.values(params, box.lower)
        lines = relu_lines(graph, self._intermediate(graph, values, box), lambda z: relax_relu(z, self.lower_slope))
        return bound_rows(graph, values, box, spec, lines, sides)

    def intermediate_bounds(self, graph: Graph, params: Params, box: Box) -> dict[int, Interval]:
        """Pre-activation bounds by the index of the operation that a ReLU reads; each [batch, *shape]."""
        values = graph.values(params, box.lower)
        bounds_of, found = self._intermediate(graph, values, box), {}

        def remember(index: int, lines: Lines) -> Interval:
            found[index] = bounds_of(index, lines)
            return found[index]

        relu_lines(graph, remember, lambda z: relax_relu(z, self.lower_slope))
        return found

    def _intermediate(self, graph: Graph, values: Values, box: Box) -> Callable[[int, Lines], Interval]:
        intervals = propagate_intervals(graph, values, box)

        def bounds_of(index: int, lines: Lines) -> Interval:
            if _interval_is_exact(graph, index):
                return intervals[index]
            bounds = bound_operation(graph, values, box, index, lines)
            return bounds.intersect(intervals[index]) if self.intersect else bounds

        return bounds_of


def _interval_is_exact(graph: Graph, index: int) -> bool:
    """Whether interval propagation loses nothing up to here, so that back-substitution would return the same.

    True from the input through at most one affine layer; scaling channels and reshaping lose nothing either.
    """
    mixing = 0
    while graph.ops[index].inputs:
        op = graph.ops[index]
        if isinstance(op, (ReLU, Add)):
            return False
        mixing += isinstance(op, LinearMap) and not isinstance(op, (ChannelAffine, Reshape))
        index = op.inputs[0]
    return mixing <= 1
