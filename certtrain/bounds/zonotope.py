"""DeepZ: zonotopes with one new error term per crossing neuron (Singh et al., NeurIPS 2018).

A form of such a zonotope is a row that is carried back between parallel lines: a crossing neuron's output is
slope · z - slope · l/2 with an error of as much, and the lower or the upper line is where that error is worst for the
row. Both find the same bounds (as Fast-Lin and DeepZ do: Salman et al., NeurIPS 2019), but error terms are many, and
rows read no more of the input than their rectangle.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from certtrain.bounds.backsubstitution import Lines
from certtrain.bounds.base import Bounds, Box, Sides
from certtrain.bounds.budget import Budgeted
from certtrain.bounds.bulk import bound_rows
from certtrain.bounds.intermediate import bound_operation, exact_intervals, relu_lines, unless_exact
from certtrain.bounds.interval import Interval
from certtrain.bounds.middle import Middle
from certtrain.bounds.slopes import relax_relu
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class Zonotope(Budgeted):
    """Slope u/(u-l) at a crossing neuron, centre shifted by half the gap, the other half a new error term."""

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        substitution = self.substitution(graph, params, box)
        middle = Middle(substitution, box)

        def bound(index: int, lines: Lines) -> Interval:
            return bound_operation(substitution, index, lines, middle=middle.at(index, lines))

        bounds_of = unless_exact(graph, exact_intervals(graph, substitution.values, box), bound)
        lines = relu_lines(graph, bounds_of, lambda z: relax_relu(z, "parallel"))
        return bound_rows(substitution, spec, lines, sides)
