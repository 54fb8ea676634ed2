"""DeepZ: zonotopes with one new error term per crossing neuron (Singh et al., NeurIPS 2018).

A form of such a zonotope is a row that is carried back between parallel lines: a crossing neuron's output is
slope · z - slope · l/2 with an error of as much, and the lower or the upper line is where that error is worst for the
row. Both find the same bounds (as Fast-Lin and DeepZ do: Salman et al., NeurIPS 2019), but error terms are many, and
rows read no more of the input than their rectangle.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from certtrain.bounds.backsubstitution import Lines, Substitution
from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.bulk import bound_rows
from certtrain.bounds.chunks import check_memory
from certtrain.bounds.intermediate import bound_operation, interval_is_exact, relu_lines
from certtrain.bounds.interval import Interval, propagate_intervals
from certtrain.bounds.middle import Middle
from certtrain.bounds.slopes import relax_relu
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class Zonotope(Relaxation):
    """Slope u/(u-l) at a crossing neuron, centre shifted by half the gap, the other half a new error term.

    Attributes:
        memory_mb: As in `DeepPoly`.

    Raises:
        ConfigError: If memory_mb is not positive; from `bound`, if it is too small for one row.
    """

    memory_mb: int | float | None = None

    def __post_init__(self) -> None:
        check_memory(self.memory_mb)

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        values = graph.values(params, box.lower)
        substitution, middle = Substitution.of(graph, values, box, self.memory_mb), Middle(graph, values, box)
        intervals = propagate_intervals(graph, values, box)

        def bounds_of(index: int, lines: Lines) -> Interval:
            if interval_is_exact(graph, index):
                return intervals[index]
            return bound_operation(substitution, index, lines, middle=middle.at(index, lines))

        lines = relu_lines(graph, bounds_of, lambda z: relax_relu(z, "parallel"))
        return bound_rows(substitution, spec, lines, sides)
