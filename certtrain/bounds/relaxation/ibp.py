"""IBP: interval bound propagation (Gowal et al., arXiv 1810.12715)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.activations import Interval, Lines
from certtrain.bounds.analysis import NOTHING, Analysing, Analysis, Given
from certtrain.bounds.base import Bounds, Box, Sides
from certtrain.bounds.forward.interval import propagate_intervals
from certtrain.bounds.rows.dense import channels_last
from certtrain.bounds.substitution.specification import Pairs, contract_interval, merge_spec, spec_rows
from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import Activation
from certtrain.precision import full_float32


@dataclass(frozen=True)
class IBP(Analysing):
    """Intervals through every layer; the specification is merged into the last one."""

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        return self._bound(graph, params, box, spec, NOTHING)[0]

    def bound_with(self, graph: Graph, params: Params, box: Box, spec: Tensor, index: int) -> tuple[Bounds, Interval]:
        """Bounds of a specification, and the intervals of an operation on the way there, [batch, *its shape].

        Args:
            graph: The network.
            params: See `bound`.
            box: See `bound`.
            spec: See `bound`.
            index: Of the operation, before the last linear one.
        """
        with full_float32(box.lower.device):
            bounds, intervals = self._bound(graph, params, box, spec, NOTHING)
        return bounds, intervals[index]

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
        if given.slopes or given.multipliers:
            raise ConfigError("ibp has neither slopes nor rows that multipliers could enter: use deeppoly or crown_ibp")
        bounds, intervals = self._bound(graph, params, box, spec, given)
        hidden, lines = {}, {}
        for index, op in graph.activations:
            if index < len(intervals):
                hidden[op.inputs[0]] = intervals[op.inputs[0]]
                lines[index] = _constants(op, intervals[op.inputs[0]]).map(channels_last)
        return Analysis(bounds, hidden, lines)

    def _bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None, given: Given
    ) -> tuple[Bounds, list[Interval]]:
        values = graph.values(params, box.lower)
        # The identity would have a row for each output, of which the first part of a network has many.
        if spec is None:
            intervals = propagate_intervals(graph, values, box, given=given)
            return Bounds(intervals[-1].lower.flatten(1), intervals[-1].upper.flatten(1)), intervals
        wanted = spec_rows(graph, spec, box.lower)
        pairs = Pairs.of(wanted)
        index, rows, constant = merge_spec(graph, values, wanted if pairs is None else pairs.rows)
        intervals = propagate_intervals(graph, values, box, index, given)
        found = contract_interval(rows, intervals[index], constant)
        if pairs is not None:
            found = pairs.margins(found)
        return Bounds(found.lower, found.upper), intervals


def _constants(op: Activation, z: Interval) -> Lines:
    """An interval as lines of slope zero, one pair for all inputs of an output."""
    image, none = op.function.image(z), torch.zeros_like(z.lower)
    lower, upper = (op.function.for_first_input(x) for x in (image.lower, image.upper))
    return Lines(none, none, upper, lower)
