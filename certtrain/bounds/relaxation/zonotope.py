"""DeepZ: zonotopes with one new error term per crossing neuron (Singh et al., NeurIPS 2018).

A form of such a zonotope is a row that is carried back between parallel lines: a crossing neuron's output is
slope · z - slope · l/2 with an error of as much, and the lower or the upper line is where that error is worst for the
row. Both find the same bounds (as Fast-Lin and DeepZ do: Salman et al., NeurIPS 2019), but error terms are many, and
rows read no more of the input than their rectangle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from certtrain.activations import Interval, Lines
from certtrain.bounds.analysis import NOTHING, Analysis, Given
from certtrain.bounds.base import Box, Sides
from certtrain.bounds.forward.middle import middles
from certtrain.bounds.relaxation.base import BackSubstitution
from certtrain.bounds.substitution.preactivation import (
    bound_operation,
    exact_intervals,
    relax_activations,
    unless_exact,
)
from certtrain.bounds.substitution.rows_of_spec import analyse_rows
from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class Zonotope(BackSubstitution):
    """Parallel lines: slope u/(u-l) at a crossing ReLU, centre shifted by half the gap, the rest a new error term."""

    def analyse(
        self,
        graph: Graph,
        params: Params,
        box: Box,
        spec: Tensor | None = None,
        sides: Sides = "both",
        given: Given = NOTHING,
    ) -> Analysis:
        """See `Analysing.analyse`."""
        if given.slopes:
            raise ConfigError("zonotopes have parallel lines, whose slopes follow from the bounds: use deeppoly")
        substitution = self.substitution(graph, params, box, given)
        so_far: dict[int, Lines] = {}
        middle = middles(graph, substitution.values, box, so_far)

        def bound(index: int, lines: Mapping[int, Lines]) -> Interval:
            so_far.update(lines)
            return bound_operation(substitution, index, lines, middle=middle.at(index))

        bounds_of = unless_exact(graph, exact_intervals(substitution, box), bound)
        hidden = relax_activations(graph, given, bounds_of, "parallel")
        return analyse_rows(substitution, spec, hidden, sides)
