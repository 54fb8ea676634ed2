"""Operators that move elements, repeat them, leave some out or put some between them."""

from __future__ import annotations

import operator
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.operators.arithmetic import broadcast
from certtrain.networks.onnx.values import Shape, Value

MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def transpose(node: Node) -> Value:
    """Transpose."""
    x, emitter = node.value(), node.emitter
    rank = len(x.shape)
    order = [node.axis(a, rank) for a in node.attribute("perm", list(range(rank))[::-1])]
    opened, offset = emitter.opened(x, {i for i, a in enumerate(order) if i != a})
    moved = emitter.call("permute", opened, *([0] * offset), *(a + offset for a in order))
    return emitter.reshaped(moved, [x.shape[a] for a in order])


def concat(node: Node) -> Value:
    """Concat of layers' outputs."""
    found = [node.operand(i) for i in range(len(node.operands))]
    parts = [x for x in found if isinstance(x, Value)]
    if len(parts) != len(found):
        node.refuse("only layers' outputs can be put together, no constants")
    axis, emitter = node.axis(node.attribute("axis", 1), len(parts[0].shape)), node.emitter
    opened = [emitter.opened(x, {axis}) for x in parts]
    joined = emitter.call(torch.cat, [at for at, _ in opened], axis + opened[0][1])
    return emitter.reshaped(joined, _with(parts[0].shape, axis, sum(x.shape[axis] for x in parts)))


def expand(node: Node) -> Value:
    """Expand."""
    x, shape = node.value(), tuple(int(n) for n in node.numbers(1))
    return broadcast(node, x, tuple(int(n) for n in np.broadcast_shapes(x.shape, shape)))


def slice_(node: Node) -> Value:
    """Slice, also backwards."""
    x = node.value()
    starts, ends = node.option("starts", 1, []), node.option("ends", 2, [])
    axes = node.option("axes", 3, list(range(len(starts))))
    for start, end, axis, step in zip(starts, ends, axes, node.option("steps", 4, [1] * len(starts)), strict=True):
        along = node.axis(axis, len(x.shape))
        x = _take(node, x, along, np.arange(x.shape[along])[start:end:step])
    return x


def gather(node: Node) -> Value:
    """Gather with constant indices."""
    x, index = node.value(), node.numbers(1)
    axis = node.axis(node.attribute("axis", 0), len(x.shape))
    length = x.shape[axis]
    if index.size and not (-length <= index.min() and index.max() < length):
        node.fault(f"there is no element {int(index.min())} or {int(index.max())} among {length}")
    found = _take(node, x, axis, index.flatten() % length)
    return node.emitter.reshaped(found.node, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def split(node: Node) -> list[Value]:
    """Split into parts, of the same size where none is said."""
    x = node.value()
    axis = node.axis(node.attribute("axis", 0), len(x.shape))
    length, number = x.shape[axis], node.attribute("num_outputs", len(node.outputs))
    even = -(-length // number)
    sizes = node.option("split", 1, [min(even, length - i * even) for i in range(number)])
    if sum(sizes) != length:
        node.fault(f"parts {sizes} are not {length} in sum")
    starts = np.cumsum([0, *sizes])
    return [_take(node, x, axis, np.arange(a, b)) for a, b in pairwise(starts)]


def pad(node: Node) -> Value:
    """Pad by a constant, the edge, reflection or the other side."""
    x, rank, emitter = node.value(), len(node.value().shape), node.emitter
    mode, pads = node.attribute("mode", "constant"), [int(n) for n in node.option("pads", 1, [])]
    value = node.option("value", 2, 0.0)
    value = float(value[0] if isinstance(value, list) else value)
    axes = [node.axis(int(a), rank) for a in node.option("axes", 3, list(range(rank)))]
    if mode not in MODES:
        node.refuse(f"mode={mode} is not supported")
    if len(pads) != 2 * len(axes):
        node.fault(f"{len(pads)} borders for {len(axes)} axes; two of each")
    border = {a: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes) if pads[i] or pads[i + len(axes)]}
    if not border:
        return x
    opened, offset = emitter.opened(x, border)
    # Torch pads the last axes; images always by four numbers.
    first = min(min(border), rank - 2) if rank + offset == 4 else min(border)
    listed = [n for a in reversed(range(first, rank)) for n in border.get(a, (0, 0))]
    moved = emitter.call(F.pad, opened, listed, MODES[mode], **({"value": value} if mode == "constant" else {}))
    return emitter.reshaped(moved, [n + sum(border.get(a, (0, 0))) for a, n in enumerate(x.shape)])


def _take(node: Node, x: Value, axis: int, index: np.ndarray) -> Value:
    """Elements of an axis, by their numbers; at least one."""
    if not len(index):
        node.refuse("nothing would be left of its input")
    if np.array_equal(index, np.arange(x.shape[axis])):
        return x
    emitter = node.emitter
    opened, offset = emitter.opened(x, {axis})
    return emitter.reshaped(_select(node, opened, axis + offset, index), _with(x.shape, axis, len(index)))


def _select(node: Node, x: fx.Node, axis: int, index: np.ndarray) -> fx.Node:
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if step > 0 and (np.diff(index) == step).all():
        part = (*[slice(None)] * axis, slice(int(index[0]), int(index[-1]) + 1, step))
        return node.emitter.call(operator.getitem, x, part)
    return node.emitter.call(torch.index_select, x, axis, node.constant(torch.from_numpy(index.astype(np.int64))))


def _with(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], length, *shape[axis + 1 :])
