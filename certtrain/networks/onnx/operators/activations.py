"""Nonlinear functions of one number."""

from __future__ import annotations

import operator
from math import inf
from typing import Any

import torch
from torch import nn

from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.values import Value

# Ends of a range that older exporters write where there is none.
_LARGEST = 3.4e38


def _layer(node: Node, layer: nn.Module) -> Value:
    x = node.value()
    return node.emitter.value(node.layer(layer, x.node), x.shape)


def relu(node: Node) -> Value:
    """Relu."""
    return _layer(node, nn.ReLU())


def leaky_relu(node: Node) -> Value:
    """LeakyRelu."""
    return _layer(node, nn.LeakyReLU(float(node.attribute("alpha", 0.01))))


def sigmoid(node: Node) -> Value:
    """Sigmoid."""
    return _layer(node, nn.Sigmoid())


def tanh(node: Node) -> Value:
    """Tanh."""
    return _layer(node, nn.Tanh())


def clip(node: Node) -> Value:
    """Clip to a range that may be open at one end or both."""
    x = node.value()
    low, high = _number(node.option("min", 1), -inf), _number(node.option("max", 2), inf)
    low, high = (low if low > -_LARGEST else -inf), (high if high < _LARGEST else inf)
    if not low < high:
        node.fault(f"its range must not be empty, got {low:g} to {high:g}")
    if (low, high) == (-inf, inf):
        return x
    if (low, high) == (0.0, inf):
        return relu(node)
    if inf not in (-low, high):
        return _layer(node, nn.Hardtanh(low, high))
    end = {"min": low} if high == inf else {"max": high}
    return node.emitter.value(node.emitter.call(torch.clamp, x.node, **end), x.shape)


def hard_sigmoid(node: Node) -> Value:
    """HardSigmoid: alpha · x + beta, clipped to [0, 1]."""
    x, emit = node.value(), node.emitter.call
    alpha, beta = float(node.attribute("alpha", 0.2)), float(node.attribute("beta", 0.5))
    line = emit(operator.add, emit(operator.mul, x.node, alpha), beta)
    return node.emitter.value(node.layer(nn.Hardtanh(0.0, 1.0), line), x.shape)


def _number(found: Any, default: float) -> float:
    if isinstance(found, list):  # a tensor with one element where a number is meant
        (found,) = found
    return default if found is None else float(found)
