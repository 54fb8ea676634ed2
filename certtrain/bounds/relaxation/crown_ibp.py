"""CROWN-IBP: interval bounds inside, one back-substitution of the specification (Zhang et al., arXiv 1906.06316).

This is the variant written R in the literature: the back-substituted bound alone, without mixing in IBP's and without
loss fusion. Mixing over the course of training is a schedule's business, not the relaxation's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from certtrain.activations import SlopeRule
from certtrain.bounds.analysis import NOTHING, Analysis, Given
from certtrain.bounds.base import Box, Sides
from certtrain.bounds.forward.interval import propagate_intervals
from certtrain.bounds.relaxation.base import BackSubstitution
from certtrain.bounds.substitution.preactivation import relax_activations
from certtrain.bounds.substitution.rows_of_spec import analyse_rows
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class CrownIBP(BackSubstitution):
    """Back-substitution with interval pre-activation bounds.

    Attributes:
        lower_slope: As in `DeepPoly`.
    """

    lower_slope: SlopeRule = "adaptive"

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
        hidden = relax_activations(graph, given, lambda index, lines: intervals[index], self.lower_slope)
        return analyse_rows(substitution, spec, hidden, sides)
