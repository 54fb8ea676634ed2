"""Products with constant matrices."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.values import Shape, Value


def gemm(node: Node) -> Value:
    """Gemm: alpha · A B + beta · C with constant B and C."""
    alpha, beta = float(node.attribute("alpha", 1.0)), float(node.attribute("beta", 1.0))
    x, weight = node.value(), node.weight(1)
    shape = x.shape[::-1] if node.attribute("transA", 0) else x.shape
    if len(shape) != 2 or shape[0] != 1:
        node.refuse(f"its input must be [1, features], got {list(shape)}")
    weight = alpha * (weight if node.attribute("transB", 0) else weight.mT)
    bias = node.numbers(2, None)
    offset = None if bias is None else beta * node.finite(bias).expand(1, len(weight))[0]
    return _linear(node, x, weight, offset, (1, len(weight)))


def matmul(node: Node) -> Value:
    """MatMul with a constant matrix at the right or left."""
    a, b = node.operand(0), node.operand(1)
    if isinstance(a, Value) and isinstance(b, Value):
        node.refuse("the product of two layers' outputs is not linear")
    if isinstance(a, Value):
        weight = _matrix(node, node.weight(1), len(a.shape), vector=(-1, 1))
        out = (*a.shape[:-1], weight.shape[1])
        return _along_last(node, a, weight.mT, out if node.weight(1).dim() > 1 else out[:-1])
    x = node.value(1)
    if len(x.shape) > 2:
        node.refuse(f"a constant matrix times a stack of matrices, {list(x.shape)}, is not supported")
    weight = _matrix(node, node.weight(0), len(x.shape), vector=(1, -1))
    out = (*weight.shape[:1], *x.shape[1:])
    return _along_first(node, x, weight, out if node.weight(0).dim() > 1 else out[1:])


def _matrix(node: Node, weight: Tensor, rank: int, vector: tuple[int, int]) -> Tensor:
    """Constant weights as a matrix, a vector as one row or column."""
    if weight.dim() < 2:
        return weight.reshape(vector)
    if weight.dim() > max(rank, 2) or prod(weight.shape[:-2]) != 1:
        node.refuse(f"its constant must be one matrix, got {list(weight.shape)}")
    return weight.reshape(weight.shape[-2:])


def _along_last(node: Node, x: Value, weight: Tensor, out: Shape) -> Value:
    """[.., n] -> [.., m] by a matrix [m, n]."""
    others = prod(x.shape[:-1])
    if others == 1:
        return _linear(node, x, weight, None, out)
    # A matrix at every position is a convolution of length one.
    emit = node.emitter
    signals = emit.call(torch.transpose, emit.reshaped(x.node, (1, others, x.shape[-1])).node, 1, 2)
    found = emit.call(torch.transpose, node.layer(_pointwise(weight), signals), 1, 2)
    return emit.reshaped(found, out)


def _along_first(node: Node, x: Value, weight: Tensor, out: Shape) -> Value:
    """[n] or [n, k] -> [m] or [m, k] by a matrix [m, n]."""
    others = prod(x.shape[1:])
    if others == 1:
        return _linear(node, x, weight, None, out)
    signals = node.emitter.reshaped(x.node, (1, x.shape[0], others)).node
    return node.emitter.reshaped(node.layer(_pointwise(weight), signals), out)


def _linear(node: Node, x: Value, weight: Tensor, bias: Tensor | None, out: Shape) -> Value:
    flat = node.emitter.reshaped(x.node, (1, prod(x.shape)))
    outputs, inputs = weight.shape
    if flat.shape[1] != inputs:
        node.fault(f"its matrix takes {inputs} numbers, its input has {flat.shape[1]}")
    layer = nn.Linear(inputs, outputs, bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.contiguous())
    return node.emitter.reshaped(node.layer(layer, flat.node), out)


def _pointwise(weight: Tensor) -> nn.Conv1d:
    layer = nn.Conv1d(weight.shape[1], weight.shape[0], 1, bias=False, device="meta")
    layer.weight = nn.Parameter(weight[:, :, None].contiguous())
    return layer
