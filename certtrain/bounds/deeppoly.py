"""DeepPoly / CROWN: back-substitution all the way (Singh et al., POPL 2019; Zhang et al., arXiv 1811.00866)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from certtrain.bounds.backsubstitution import Lines, Substitution
from certtrain.bounds.base import Bounds, Box, Sides
from certtrain.bounds.budget import Budgeted
from certtrain.bounds.bulk import bound_rows
from certtrain.bounds.checks import check_query
from certtrain.bounds.intermediate import BoundsOf, bound_operation, relu_lines, unless_exact
from certtrain.bounds.interval import Interval, propagate_intervals
from certtrain.bounds.slopes import SlopeRule, relax_relu
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class DeepPoly(Budgeted):
    """Back-substitution whose intermediate bounds are back-substituted too.

    Attributes:
        lower_slope: Lower line of crossing neurons: adaptive, zero, one or parallel, see `relax_relu`.
        intersect: Intersect every intermediate bound with plain interval propagation of the same neuron; False is the
            textbook version. Bounds of unstable neurons are then never looser than either of the two.
    """

    lower_slope: SlopeRule = "adaptive"
    intersect: bool = True

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        substitution = self.substitution(graph, params, box)
        bounds_of = self._intermediate(substitution, box)
        lines = relu_lines(graph, bounds_of, lambda z: relax_relu(z, self.lower_slope))
        return bound_rows(substitution, spec, lines, sides)

    def intermediate_bounds(self, graph: Graph, params: Params, box: Box) -> dict[int, Interval]:
        """Pre-activation bounds by the index of the operation that a ReLU reads; each [batch, *shape].

        With `intersect`, elements that interval propagation shows stable keep its bounds: no other bound depends on
        theirs.
        """
        check_query(graph, params, box.lower, None, "both")
        substitution = self.substitution(graph, params, box)
        bounds_of, found = self._intermediate(substitution, box), {}

        def remember(index: int, lines: Lines) -> Interval:
            found[index] = bounds_of(index, lines)
            return found[index]

        relu_lines(graph, remember, lambda z: relax_relu(z, self.lower_slope))
        return found

    def _intermediate(self, substitution: Substitution, box: Box) -> BoundsOf:
        graph, values = substitution.graph, substitution.values
        intervals = propagate_intervals(graph, values, box)

        def bound(index: int, lines: Lines) -> Interval:
            return bound_operation(substitution, index, lines, intervals[index] if self.intersect else None)

        return unless_exact(graph, intervals, bound)
