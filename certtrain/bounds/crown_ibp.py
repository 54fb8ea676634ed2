"""CROWN-IBP: interval bounds inside, one back-substitution of the specification (Zhang et al., arXiv 1906.06316).

This is the variant written R in the literature: the back-substituted bound alone, without mixing in IBP's and without
loss fusion. Mixing over the course of training is a schedule's business, not the relaxation's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from certtrain.bounds.base import Bounds, Box, Sides
from certtrain.bounds.budget import Budgeted
from certtrain.bounds.bulk import bound_rows
from certtrain.bounds.intermediate import relu_lines
from certtrain.bounds.interval import propagate_intervals
from certtrain.bounds.slopes import SlopeRule, relax_relu
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class CrownIBP(Budgeted):
    """Back-substitution with interval intermediate bounds.

    Attributes:
        lower_slope: As in `DeepPoly`.
    """

    lower_slope: SlopeRule = "adaptive"

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        substitution = self.substitution(graph, params, box)
        intervals = propagate_intervals(graph, substitution.values, box)
        lines = relu_lines(graph, lambda i, _: intervals[i], lambda z: relax_relu(z, self.lower_slope))
        return bound_rows(substitution, spec, lines, sides)
