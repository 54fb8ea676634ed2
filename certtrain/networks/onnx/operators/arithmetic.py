"""Sums, differences, and products with constants, broadcast as ONNX does it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from torch import fx

from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.values import Operand, Shape, Value, has_batch


def add(node: Node) -> Value:
    """Add and Sum: of two or more layers' outputs and constants."""
    operands = [found for i in range(len(node.operands)) if (found := node.operand(i)) is not None]
    return reduce(lambda a, b: _combine(node, operator.add, a, b), operands[1:], operands[0])  # type: ignore[return-value]


def subtract(node: Node) -> Value:
    """Sub."""
    return _combine(node, operator.sub, *_two(node))


def multiply(node: Node) -> Value:
    """Mul, of which one factor is constant."""
    a, b = _two(node)
    if isinstance(a, Value) and isinstance(b, Value):
        node.refuse("the product of two layers' outputs is not linear")
    return _combine(node, operator.mul, a, b)


def divide(node: Node) -> Value:
    """Div by a constant."""
    a, b = _two(node)
    if isinstance(b, Value):
        node.refuse("only a layer's output divided by a constant is linear")
    if (b == 0).any():
        node.fault("it divides by zero")
    return _combine(node, operator.truediv, a, b)


def negate(node: Node) -> Value:
    """Neg."""
    x = node.value()
    return node.emitter.value(node.emitter.call(operator.neg, x.node), x.shape)


def _two(node: Node) -> tuple[Operand, Operand]:
    a, b = node.operand(0), node.operand(1)
    if a is None or b is None:
        node.fault("it needs two inputs")
    return a, b


def _combine(node: Node, function: Callable[[Any, Any], Any], a: Operand, b: Operand) -> Any:
    """A function of two operands, of which at least one is a value, unless both are constants of a longer sum."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return function(a, b)
    shape = tuple(int(n) for n in np.broadcast_shapes(a.shape, b.shape))
    sides = [_operand(node, side, shape) for side in (a, b)]
    emit = node.emitter.call
    if isinstance(sides[0], fx.Node):
        return node.emitter.value(emit(function, sides[0], sides[1]), shape)
    return node.emitter.value(emit(function, *sides), shape)


def _operand(node: Node, operand: Operand, shape: Shape) -> Any:
    """A value broadcast to a shape, or a constant that torch broadcasts to it: a number where it is one."""
    if isinstance(operand, Value):
        return broadcast(node, operand, shape).node
    tensor = node.finite(operand)
    if tensor.numel() == 1:
        return float(tensor)
    full = (*[1] * (len(shape) - tensor.dim()), *tensor.shape)
    return node.constant(tensor.reshape(full[1:] if has_batch(shape) else full))


def broadcast(node: Node, x: Value, shape: Shape) -> Value:
    """A value, repeated along axes of length one; ONNX shapes, aligned at their ends."""
    emitter = node.emitter
    if x.shape == shape:
        return x
    before = (*[1] * (len(shape) - len(x.shape)), *x.shape)
    x = emitter.reshaped(x.node, before)
    if before == shape:
        return x
    opened, offset = emitter.opened(x, {i for i, (m, n) in enumerate(zip(before, shape, strict=True)) if m != n})
    sizes = shape if offset else shape[1:]
    return emitter.reshaped(emitter.call("expand", opened, -1, *sizes), shape)
