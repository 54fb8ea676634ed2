"""Sums of layers, and sums and products with constants."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from certtrain.networks.ops import Add, ChannelConstants, Constant, ElementConstants, Op, Shape
from certtrain.networks.tracing.builder import Builder
from certtrain.networks.tracing.moves import replay
from certtrain.networks.tracing.recording import ancestors, argument

ZERO, ONE, MINUS = Constant(0.0), Constant(1.0), Constant(-1.0)


def add(builder: Builder, node: fx.Node) -> None:
    """A + b, also with a factor `alpha` of b."""
    _sum(builder, node, sign=1.0)


def subtract(builder: Builder, node: fx.Node) -> None:
    """A - b."""
    _sum(builder, node, sign=-1.0)


def multiply(builder: Builder, node: fx.Node) -> None:
    """A constant times a layer."""
    a, b = _operands(node)
    if isinstance(a, fx.Node) and a in builder.index:
        if isinstance(b, fx.Node) and b in builder.index:
            builder.refuse(node, "the product of two layers' outputs is not linear")
        _affine(builder, node, _constant(builder, node, b), ZERO)
    else:
        _affine(builder, node, _constant(builder, node, a), ZERO)


def divide(builder: Builder, node: fx.Node) -> None:
    """A layer over a constant."""
    a, b = _operands(node)
    if not (isinstance(a, fx.Node) and a in builder.index) or (isinstance(b, fx.Node) and b in builder.index):
        builder.refuse(node, "only a layer's output divided by a constant is linear")
    if node.kwargs.get("rounding_mode") is not None:
        builder.refuse(node, "rounding is not supported")
    _affine(builder, node, replace(_constant(builder, node, b), inverse=True), ZERO)


def negate(builder: Builder, node: fx.Node) -> None:
    """-a."""
    _affine(builder, node, MINUS, ZERO)


def _operands(node: fx.Node) -> tuple[Any, Any]:
    return argument(node, 0, "input", None), argument(node, 1, "other", None)


def _sum(builder: Builder, node: fx.Node, sign: float) -> None:
    a, b = _operands(node)
    alpha = node.kwargs.get("alpha", 1)
    if not isinstance(alpha, (int, float)):
        builder.refuse(node, "its factor alpha must be a number")
    sign *= alpha
    layers = [isinstance(x, fx.Node) and x in builder.index for x in (a, b)]
    if all(layers):
        if any(builder.shape(x) != builder.shape(node) for x in (a, b)):
            builder.refuse(node, "both terms of an addition must have the same shape")
        first, second = builder.index[a], builder.index[b]
        if sign != 1:
            builder.append(node, _constants(builder, node, second, replace(ONE, number=sign), ZERO))
            second = builder.index[node]
        builder.append(node, Add(builder.label(node), (first, second), builder.shape(node)))
    elif layers[0]:
        term = _constant(builder, node, b)
        _affine(builder, node, ONE, replace(term, number=sign * term.number))
    else:
        _affine(builder, node, replace(ONE, number=sign), _constant(builder, node, a))


def _affine(builder: Builder, node: fx.Node, factor: Constant, term: Constant) -> None:
    """Factor · x + term for the only layer that the node reads."""
    (index,) = set(builder.inputs(node))
    if builder.ops[index].shape != builder.shape(node):
        builder.refuse(node, "a constant must not be larger than the layer that it meets")
    builder.append(node, _constants(builder, node, index, factor, term))


def _constants(builder: Builder, node: fx.Node, index: int, factor: Constant, term: Constant) -> Op:
    shape = builder.ops[index].shape
    kind = ChannelConstants if factor.is_per_channel and term.is_per_channel else ElementConstants
    return kind(builder.label(node), (index,), shape, shape, factor, term)


def _constant(builder: Builder, node: fx.Node, operand: Any) -> Constant:
    """A number, or a registered tensor that was at most reshaped on its way."""
    if isinstance(operand, bool) or not isinstance(operand, (int, float, fx.Node)):
        builder.refuse(node, f"its other operand must be a number or a registered tensor, not {operand!r}")
    if not isinstance(operand, fx.Node):
        return Constant(float(operand))
    value = builder.results[operand]
    if isinstance(value, (int, float)):
        return Constant(float(value))
    bases = [n for n in ancestors(operand) if n.op == "get_attr"]
    if len(bases) == 1 and isinstance(value, Tensor):
        shape = _aligned(builder, node, value)
        base = builder.results[bases[0]]
        numbers = torch.arange(base.numel(), dtype=torch.float64).reshape(base.shape)
        moved = numbers if bases[0] is operand else replay(builder, operand, {bases[0]: numbers})
        if moved.numel() == numbers.numel() and torch.equal(moved.flatten(), numbers.flatten()):
            return Constant(1.0, builder.name(node, base), shape)
    builder.refuse(node, "constants must be numbers or registered tensors, at most reshaped")


def _aligned(builder: Builder, node: fx.Node, value: Any) -> Shape:
    """A constant's shape with as many axes as the layer has."""
    rank, shape = len(builder.shape(node)), tuple(value.shape)
    if len(shape) > rank:
        if len(shape) > rank + 1 or shape[0] != 1:
            builder.refuse(node, f"a constant of shape {shape} is another one for every image")
        shape = shape[1:]
    return (*[1] * (rank - len(shape)), *shape)


ARITHMETIC = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_", "subtract"), subtract),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"), multiply),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_", "divide"), divide),
    **dict.fromkeys((operator.neg, torch.neg, torch.negative, "neg", "negative"), negate),
}
