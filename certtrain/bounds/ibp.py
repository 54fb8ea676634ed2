"""IBP: interval bound propagation (Gowal et al., arXiv 1810.12715)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from certtrain.bounds.affine import contract_interval, merge_spec, spec_rows
from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.bounds.interval import propagate_intervals
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class IBP(Relaxation):
    """Intervals through every layer; the specification is merged into the last one."""

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        values = graph.values(params, box.lower)
        index, rows, constant = merge_spec(graph, values, spec_rows(graph, spec, box.lower))
        found = contract_interval(rows, propagate_intervals(graph, values, box, index)[index], constant)
        return Bounds(found.lower, found.upper)
