"""HBox: a hybrid of zonotope and box that turns crossing neurons into boxes (Jovanović et al., TMLR 10/2022).

Every operation's output is the sum of two parts. One is an affine image of the input that passes active neurons only:
rows carried back bound it, one for each neuron that intervals leave unstable, instead of an error term per pixel
carried forward. The other collects the boxes of crossing neurons: intervals bound it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.affine import contract_interval, merge_spec, spec_rows
from certtrain.bounds.backsubstitution import Lines, Substitution
from certtrain.bounds.base import Bounds, Box, Sides
from certtrain.bounds.budget import Budgeted
from certtrain.bounds.bulk import bound_rows
from certtrain.bounds.intermediate import bound_operation, unless_exact
from certtrain.bounds.interval import Interval, propagate_intervals
from certtrain.bounds.middle import Middle
from certtrain.bounds.rows import channels_last
from certtrain.bounds.slopes import ReluLines
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import Add, Input, LinearMap, ReLU, Values


@dataclass(frozen=True)
class HBox(Budgeted):
    """Error terms survive stable neurons only: a crossing one becomes the box [0, u], independent of all else."""

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        substitution = self.substitution(graph, params, box)
        lines, boxes = _propagate(substitution, box)
        affine = bound_rows(substitution, spec, lines, sides)
        index, rows, _ = merge_spec(graph, substitution.values, spec_rows(graph, spec, box.lower))
        collected = boxes[index]
        if collected is None:
            return affine
        added = contract_interval(rows, collected)
        return Bounds(affine.lower + added.lower, None if affine.upper is None else affine.upper + added.upper)


def _propagate(substitution: Substitution, box: Box) -> tuple[dict[int, ReluLines], list[Interval | None]]:
    """The affine part's lines by the ReLU's index; every operation's part from boxes, None before the first ReLU."""
    graph, values = substitution.graph, substitution.values
    intervals = propagate_intervals(graph, values, box)
    middle = Middle(substitution, box)
    lines: dict[int, ReluLines] = {}
    boxes: list[Interval | None] = []

    def bound(index: int, lines: Lines) -> Interval:
        # HBox is never looser than intervals, so what is stable by them needs no row.
        at, rest = middle.at(index, lines), boxes[index]
        return bound_operation(substitution, index, lines, intervals[index], middle=at, rest=rest)

    bounds_of = unless_exact(graph, intervals, bound)
    for i, op in enumerate(graph.ops):
        match op:
            case Input():
                boxes.append(None)
            case ReLU():
                before = op.inputs[0]
                z = bounds_of(before, lines)
                lines[i] = _lines(z).map(channels_last)
                boxes.append(_boxes(z, boxes[before]))
            case Add():
                a, b = (boxes[j] for j in op.inputs)
                boxes.append(a + b if a is not None and b is not None else a or b)
            case LinearMap():
                collected = boxes[op.inputs[0]]
                boxes.append(None if collected is None else _linear(op, values, collected))
    return lines, boxes


def _lines(z: Interval) -> ReluLines:
    """The affine part passes active neurons and ends at all others."""
    active = (z.lower >= 0).to(z.lower.dtype)
    return ReluLines(active, torch.zeros_like(active), torch.zeros_like(active))


def _boxes(z: Interval, before: Interval | None) -> Interval:
    """The boxes' part behind a ReLU: as before it where the neuron is active, nothing where it is not, else [0, u]."""
    active, inactive = z.lower >= 0, z.upper <= 0
    zero = torch.zeros_like(z.upper)
    before = Interval(zero, zero) if before is None else before
    # A NaN bound makes a neuron neither, and goes on from here.
    lower = torch.where(active, before.lower, zero)
    return Interval(lower, torch.where(active, before.upper, torch.where(inactive, zero, z.upper)))


def _linear(op: LinearMap, values: Values, x: Interval) -> Interval:
    """Y = W x: centre through W, radius through |W|. The offset belongs to the affine part."""
    return Interval.around(op.forward_linear(values, x.center), op.forward_abs(values, x.radius))
