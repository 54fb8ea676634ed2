"""Back-substitution written down plainly: one dense matrix per layer, every row of every neuron, nothing skipped.

Slow and large on purpose: what the fast implementation must agree with. It shares no code with it but the operations'
`forward` and `offset`; adjoints are taken by automatic differentiation.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from certtrain.bounds import Box
from certtrain.networks import Graph, Params
from certtrain.networks.ops import Activation, Add, Input, LinearMap

Lines = dict[int, tuple[Tensor, Tensor, Tensor]]
Bounds = tuple[Tensor, Tensor]


def adaptive(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(lower slope, upper slope, upper intercept), neuron by neuron."""
    crossing = (lower < 0) & (upper > 0)
    chord = torch.where(crossing, upper / torch.where(crossing, upper - lower, 1.0), (lower >= 0).to(lower))
    slope = torch.where(crossing, (upper > -lower).to(lower), chord)
    return slope, chord, torch.where(crossing, -chord * lower, 0.0)


def intervals(graph: Graph, values: Params, box: Box) -> list[Bounds]:
    """Interval propagation, each layer by its weights' signs as a dense matrix."""
    found: list[Bounds] = []
    for op in graph.ops:
        match op:
            case Input():
                found.append((box.lower, box.upper))
            case Activation():
                found.append(tuple(x.relu() for x in found[op.inputs[0]]))
            case Add():
                found.append(tuple(a + b for a, b in zip(*(found[i] for i in op.inputs), strict=True)))
            case LinearMap():
                lower, upper = (x.flatten(1) for x in found[op.inputs[0]])
                matrix = dense_matrix(op, values, lower)
                zero = torch.zeros((1, *op.in_shape), dtype=lower.dtype)
                offset = op.forward(values, zero).flatten(1)
                down = lower @ matrix.clamp(min=0).T + upper @ matrix.clamp(max=0).T + offset
                up = upper @ matrix.clamp(min=0).T + lower @ matrix.clamp(max=0).T + offset
                found.append((down.reshape(-1, *op.shape), up.reshape(-1, *op.shape)))
    return found


def dense_matrix(op: LinearMap, values: Params, like: Tensor) -> Tensor:
    """W of y = W x + b: [outputs, inputs]."""
    size = torch.Size(op.in_shape).numel()
    eye = torch.eye(size, dtype=like.dtype).reshape(size, *op.in_shape)
    zero = op.forward(values, torch.zeros_like(eye[:1]))
    return (op.forward(values, eye) - zero).flatten(1).T


def substitute(graph: Graph, values: Params, box: Box, start: int, rows: Tensor, lines: Lines) -> Tensor:
    """Lower bounds [batch, rows] of rows [batch, rows, elements of the operation `start`]."""
    pending = {start: rows}
    constant = torch.zeros(rows.shape[:2], dtype=rows.dtype)
    for index in range(start, 0, -1):
        if index not in pending:
            continue
        rows, op = pending.pop(index), graph.ops[index]
        if isinstance(op, Activation):
            slope, chord, intercept = (x.flatten(1)[:, None] for x in lines[index])
            constant = constant + (rows.clamp(max=0) * intercept).sum(-1)
            rows = rows.clamp(min=0) * slope + rows.clamp(max=0) * chord
        elif isinstance(op, LinearMap):
            zero = torch.zeros((1, *op.in_shape), dtype=rows.dtype)
            constant = constant + rows @ op.forward(values, zero).flatten()
            rows = rows @ dense_matrix(op, values, rows)
        for i in op.inputs:
            pending[i] = pending[i] + rows if i in pending else rows
    rows, center, radius = pending[0], box.center.flatten(1), box.radius.flatten(1)
    return constant + (rows * center[:, None]).sum(-1) - (rows.abs() * radius[:, None]).sum(-1)


def bound(
    graph: Graph, params: Params, box: Box, spec: Tensor, hidden: str, relax: Callable = adaptive
) -> tuple[Bounds, dict[int, Bounds]]:
    """Bounds of the specification, and of what each ReLU reads.

    `hidden` says where the latter come from: "ibp", "crown" (all of them back-substituted) or "both" (intersected).
    """
    values = graph.values(params, box.lower)
    loose = intervals(graph, values, box)
    lines: Lines = {}
    pre: dict[int, Bounds] = {}
    for index, op in enumerate(graph.ops):
        if not isinstance(op, Activation):
            continue
        read, (lower, upper) = op.inputs[0], loose[op.inputs[0]]
        if hidden != "ibp":
            size = graph.ops[read].size
            eye = torch.eye(size, dtype=box.lower.dtype).expand(len(box), -1, -1)
            down = substitute(graph, values, box, read, eye, lines).reshape(lower.shape)
            up = -substitute(graph, values, box, read, -eye, lines).reshape(lower.shape)
            both = (torch.maximum(down, lower), torch.minimum(up, upper))
            lower, upper = both if hidden == "both" else (down, up)
        pre[read], lines[index] = (lower, upper), relax(lower, upper)
    last = len(graph.ops) - 1
    down = substitute(graph, values, box, last, spec, lines)
    return (down, -substitute(graph, values, box, last, -spec, lines)), pre
