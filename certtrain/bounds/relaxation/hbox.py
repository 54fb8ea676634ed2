"""HBox: a hybrid of zonotope and box that turns crossing neurons into boxes (Jovanović et al., TMLR 10/2022).

Every operation's output is the sum of two parts. One is an affine image of the input that passes active neurons only:
rows carried back bound it, one for each neuron that intervals leave unstable, instead of an error term per pixel
carried forward. The other collects the boxes of crossing neurons: intervals bound it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from certtrain.activations import Interval, Lines
from certtrain.bounds.analysis import NOTHING, Analysis, Given
from certtrain.bounds.base import Bounds, Box, Sides
from certtrain.bounds.forward.interval import propagate_intervals
from certtrain.bounds.forward.middle import middles
from certtrain.bounds.relaxation.base import BackSubstitution
from certtrain.bounds.rows.dense import channels_last
from certtrain.bounds.substitution.preactivation import (
    Hidden,
    Substitution,
    bound_operation,
    pre_activation,
    unless_exact,
)
from certtrain.bounds.substitution.rows_of_spec import analyse_rows
from certtrain.bounds.substitution.specification import contract_interval, merge_spec, spec_rows
from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import Activation, Add, Input, LinearMap, Values
from certtrain.networks.rules import Propagation, Rules


@dataclass(frozen=True)
class HBox(BackSubstitution):
    """Error terms survive where activations are linear: an undecided one becomes a box, independent of all else."""

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
            raise ConfigError("hbox has neither slopes to choose nor multipliers: use deeppoly or crown_ibp")
        substitution = self.substitution(graph, params, box, given)
        hidden, boxes = _propagate(substitution, box)
        affine = analyse_rows(substitution, spec, hidden, sides)
        index, rows, _ = merge_spec(graph, substitution.values, spec_rows(graph, spec, box.lower))
        collected = boxes.at(index)
        if collected is None:
            return affine
        added, found = contract_interval(rows, collected), affine.bounds
        upper = None if found.upper is None else found.upper + added.upper
        return replace(affine, bounds=Bounds(found.lower + added.lower, upper))


@dataclass(frozen=True)
class _Boxes:
    """What the part from boxes is carried forward with."""

    values: Values
    hidden: Hidden
    passed: dict[int, Tensor]

    def activation(self, index: int, op: Activation, before: Interval | None) -> Interval:
        """As before it, scaled, where the function is linear; elsewhere the smallest box of its values."""
        z, function = self.hidden.bounds[op.inputs[0]], op.function
        image = function.image(z)
        # What is no number is boxed, too: its image is none either.
        boxed = function.any_input(function.undecided(z) | (z.upper - z.lower).isnan())
        if before is None:
            passed = Interval(*[torch.zeros((), dtype=z.lower.dtype, device=z.lower.device)] * 2)
        else:
            passed = before.scaled(self.passed[index]).map(function.collect)
        return Interval(torch.where(boxed, image.lower, passed.lower), torch.where(boxed, image.upper, passed.upper))

    def linear(self, index: int, op: LinearMap, x: Interval | None) -> Interval | None:
        """Y = W x: centre through W, radius through |W|. The offset belongs to the affine part."""
        if x is None:
            return None
        return Interval.around(op.forward_linear(self.values, x.center), op.forward_abs(self.values, x.radius))


def _add(context: _Boxes, index: int, op: Add, *terms: Interval | None) -> Interval | None:
    found = [term for term in terms if term is not None]
    return reduce(operator.add, found) if found else None


# Every operation's part from boxes; None before the first activation.
BOXES: Rules[Callable[..., Interval | None]] = Rules(
    "boxes of hbox",
    {
        Input: lambda context, index, op: None,
        Add: _add,
        Activation: _Boxes.activation,
        LinearMap: _Boxes.linear,
    },
)


def _propagate(substitution: Substitution, box: Box) -> tuple[Hidden, Propagation[_Boxes, Interval | None]]:
    """Pre-activation bounds with the affine part's lines; and the part from boxes."""
    graph, values, given = substitution.graph, substitution.values, substitution.given
    intervals = propagate_intervals(graph, values, box, given=given)
    hidden = Hidden({}, {})
    context = _Boxes(values, hidden, {})
    boxes = Propagation(graph.ops, BOXES, context)
    middle = middles(graph, values, box, hidden.lines)

    def bound(index: int, lines: Mapping[int, Lines]) -> Interval:
        # HBox is never looser than intervals, so what is decided by them needs no row.
        at, rest = middle.at(index), boxes.at(index)
        return bound_operation(substitution, index, lines, intervals[index], middle=at, rest=rest)

    bounds_of = unless_exact(graph, intervals, bound)
    for index, op in graph.activations:
        z = pre_activation(hidden, given, op.inputs[0], bounds_of)
        lines = op.function.linear_part(z)
        context.passed[index] = lines.lower_slope
        hidden.lines[index] = given.loosen(op.inputs[0], lines).map(channels_last)
    return hidden, boxes
