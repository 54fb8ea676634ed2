"""DeepPoly / CROWN: back-substitution all the way (Singh et al., POPL 2019; Zhang et al., arXiv 1811.00866)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from certtrain.activations import Interval, Lines, SlopeRule
from certtrain.bounds.analysis import NOTHING, Analysis, Given
from certtrain.bounds.base import Box, Sides
from certtrain.bounds.forward.interval import propagate_intervals
from certtrain.bounds.relaxation.base import BackSubstitution
from certtrain.bounds.substitution.preactivation import bound_operation, relax_activations, unless_exact
from certtrain.bounds.substitution.rows_of_spec import analyse_rows
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class DeepPoly(BackSubstitution):
    """Back-substitution whose pre-activation bounds are back-substituted too.

    Attributes:
        lower_slope: Lower line of crossing neurons: adaptive, zero, one or parallel, see `Activation.lines`.
        intersect: Intersect every pre-activation bound with plain interval propagation of the same neuron; False is the
            textbook version. Bounds of undecided neurons are then never looser than either of the two.
    """

    lower_slope: SlopeRule = "adaptive"
    intersect: bool = True

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
        substitution = self.substitution(graph, params, box, given)
        intervals = propagate_intervals(graph, substitution.values, box, given=given)

        def bound(index: int, lines: Mapping[int, Lines]) -> Interval:
            return bound_operation(substitution, index, lines, intervals[index] if self.intersect else None)

        hidden = relax_activations(graph, given, unless_exact(graph, intervals, bound), self.lower_slope)
        return analyse_rows(substitution, spec, hidden, sides)
