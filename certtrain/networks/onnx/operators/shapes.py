"""Operators that leave every element as it is, and at most give the shape another name."""

from __future__ import annotations

from math import prod

import numpy as np

from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.values import Shape, Value

FLOAT, DOUBLE = 1, 11  # of onnx.TensorProto


def identity(node: Node) -> Value:
    """Identity."""
    return node.value()


def cast(node: Node) -> Value:
    """Cast between float32 and float64, which is rounding at most: the network computes in its input's type."""
    node.attribute("saturate", 1)  # of eight-bit numbers
    to = node.attribute("to", FLOAT)
    if to not in (FLOAT, DOUBLE):
        node.refuse("only a conversion between float32 and float64 is supported")
    return node.value()


def dropout(node: Node) -> Value:
    """Dropout, which is off."""
    for name in ("ratio", "seed", "is_test"):
        node.attribute(name, 0)
    node.numbers(1, None)
    training = node.numbers(2, None)
    if training is not None and training.any():
        node.refuse("dropout must be off: export the network in eval mode")
    return node.value()


def shape(node: Node) -> np.ndarray:
    """Shape, of one input."""
    x = node.value()
    start, end = node.attribute("start", 0), node.attribute("end", len(x.shape))
    return np.array(x.shape[slice(start, end)], dtype=np.int64)


def flatten(node: Node) -> Value:
    """Flatten into a matrix."""
    x = node.value()
    axis = node.attribute("axis", 1)
    axis = axis if axis == len(x.shape) else node.axis(axis, len(x.shape))
    return _reshaped(node, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))


def reshape(node: Node) -> Value:
    """Reshape, whose shape may have one -1, and zeros for axes that stay."""
    x, wanted = node.value(), [int(n) for n in node.option("shape", 1, [])]
    if not node.attribute("allowzero", 0):
        if any(n == 0 and i >= len(x.shape) for i, n in enumerate(wanted)):
            node.fault(f"shape {wanted} copies an axis that {list(x.shape)} does not have")
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if wanted.count(-1) == 1:
        others = -prod(wanted)
        wanted[wanted.index(-1)] = prod(x.shape) // others if others else 0
    return _reshaped(node, x, tuple(wanted))


def squeeze(node: Node) -> Value:
    """Squeeze."""
    x = node.value()
    rank, axes = len(x.shape), node.option("axes", 1, None)
    dropped = {i for i, n in enumerate(x.shape) if n == 1} if axes is None else {node.axis(a, rank) for a in axes}
    return _reshaped(node, x, tuple(n for i, n in enumerate(x.shape) if i not in dropped))


def unsqueeze(node: Node) -> Value:
    """Unsqueeze."""
    x, axes = node.value(), node.option("axes", 1, [])
    rank = len(x.shape) + len(axes)
    added, lengths = {node.axis(a, rank) for a in axes}, iter(x.shape)
    return _reshaped(node, x, tuple(1 if i in added else next(lengths) for i in range(rank)))


def _reshaped(node: Node, x: Value, shape: Shape) -> Value:
    if prod(shape) != prod(x.shape):
        node.fault(f"{list(x.shape)} cannot be given the shape {list(shape)}")
    return node.emitter.reshaped(x.node, shape)
