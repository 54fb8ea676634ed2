"""Back-substitution: linear forms carried from any operation back to the input (CROWN, DeepPoly).

Only lower bounds are computed; the upper bound of a row is minus the lower bound of its negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.affine import spec_rows
from certtrain.bounds.base import Bounds, Box, Sides
from certtrain.bounds.interval import Interval, linear_interval
from certtrain.bounds.rows import DenseRows, PatchRows, Rows
from certtrain.bounds.slopes import ReluLines
from certtrain.networks.graph import Graph
from certtrain.networks.ops import ChannelAffine, LinearMap, ReLU, Reshape, Values

Lines = Mapping[int, ReluLines]


def back_substitute(graph: Graph, values: Values, box: Box, start: int, rows: Rows, lines: Lines) -> Tensor:
    """Lower bounds [batch, rows] of linear forms in the output of one operation.

    Args:
        graph: The network.
        values: Parameters and buffers.
        box: The inputs to cover.
        start: The operation that the rows read.
        rows: The linear forms.
        lines: Relaxation of every ReLU between the input and `start`, by the ReLU's index.
    """
    anchor = find_anchor(graph, values, box)
    pending: dict[int, Rows] = {start: rows}
    constant: Tensor | float = 0.0
    for index in range(start, anchor.index, -1):
        if index not in pending:
            continue
        current, op = pending.pop(index), graph.ops[index]
        match op:
            case ReLU():
                current, added = current.relu(lines[index])
                constant = constant + added
            case LinearMap():
                if index == anchor.center_index:
                    constant = constant + current.value(anchor.center)
                elif (offset := op.offset(values)) is not None:
                    constant = constant + current.value(offset.expand(1, *op.shape))
                current = current.linear(op, values)
        for i in op.inputs:
            pending[i] = pending[i] + current if i in pending else current
    rows = pending[anchor.index]
    if anchor.center_index == anchor.index:
        constant = constant + rows.value(anchor.center)
    return constant - rows.spread(anchor.radius)


@dataclass(frozen=True)
class Anchor:
    """Where back-substitution ends: the last operation whose reachable values are still a box.

    Attributes:
        index: The operation; scaling channels and reshaping map boxes to boxes and are not carried back through.
        radius: Half the width of its box, [batch, *shape].
        center_index: The operation at which the rows meet the centre of the box: the same one, or the affine layer
            behind it where that is narrower (a form's value at one point is the same in every layer, offsets included).
        center: The centre's value there, [batch, *shape].
    """

    index: int
    radius: Tensor
    center_index: int
    center: Tensor


def find_anchor(graph: Graph, values: Values, box: Box) -> Anchor:
    """See `Anchor`."""
    index, region = 0, Interval(box.lower, box.upper)
    while True:
        readers = [i for i, op in enumerate(graph.ops) if index in op.inputs]
        reader = graph.ops[readers[0]] if len(readers) == 1 else None
        if not isinstance(reader, (ChannelAffine, Reshape)):
            break
        index, region = readers[0], linear_interval(reader, values, region)
    if isinstance(reader, LinearMap) and reader.size < graph.ops[index].size:
        return Anchor(index, region.radius, readers[0], reader.forward(values, region.center))
    return Anchor(index, region.radius, index, region.center)


def bound_rows(graph: Graph, values: Values, box: Box, spec: Tensor | None, lines: Lines, sides: Sides) -> Bounds:
    """Bounds of specification rows over the network's outputs by one back-substitution."""
    rows = spec_rows(graph, spec, box.lower)
    count = rows.shape[1]
    data = rows if sides == "lower" else torch.cat([rows, -rows], dim=1)
    lower = back_substitute(graph, values, box, len(graph.ops) - 1, DenseRows(data), lines)
    lower = lower.expand(len(box), -1)
    return Bounds(lower[:, :count], None if sides == "lower" else -lower[:, count:])


def bound_operation(graph: Graph, values: Values, box: Box, index: int, lines: Lines) -> Interval:
    """Bounds of every element of one operation's output by back-substitution."""
    shape = graph.ops[index].shape
    eye = torch.eye(shape[0], dtype=box.lower.dtype, device=box.lower.device)
    if len(shape) == 3:
        rows: Rows = PatchRows.identity(torch.cat([eye, -eye]), shape)
    else:
        eye = torch.eye(graph.ops[index].size, dtype=box.lower.dtype, device=box.lower.device)
        rows = DenseRows(torch.cat([eye, -eye]).reshape(1, -1, *shape))
    lower = back_substitute(graph, values, box, index, rows, lines).expand(len(box), -1)
    lower, negative_upper = lower.reshape(len(box), 2, *shape).unbind(1)
    return Interval(lower, -negative_upper)


def relu_lines(
    graph: Graph, bounds_of: Callable[[int, Lines], Interval], relax: Callable[[Interval], ReluLines]
) -> Lines:
    """Relaxes every ReLU in order, each with bounds that may use the lines of those before it.

    Args:
        graph: The network.
        bounds_of: (operation that a ReLU reads, lines so far) -> bounds of its output.
        relax: Bounds of pre-activations -> lines.
    """
    lines: dict[int, ReluLines] = {}
    for index, op in enumerate(graph.ops):
        if isinstance(op, ReLU):
            lines[index] = relax(bounds_of(op.inputs[0], lines))
    return lines
