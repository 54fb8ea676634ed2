"""Convolutions, and batch normalisation in eval mode."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.operators.windows import images, windows
from certtrain.networks.onnx.values import Value, has_batch

CONVOLUTIONS: dict[int, type[Any]] = {1: nn.Conv1d, 2: nn.Conv2d}
PADDINGS: dict[int, type[Any]] = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d}
NORMALIZATIONS: dict[int, type[Any]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}


def convolution(node: Node) -> Value:
    """Conv in one or two dimensions."""
    x, size = images(node)
    weight, bias = node.weight(1), _bias(node)
    if weight.dim() != len(x.shape):
        node.fault(f"weights {list(weight.shape)} do not fit an input {list(x.shape)}")
    found = windows(node, size, weight.shape[2:])
    groups = int(node.attribute("group", 1))
    padding, at = found.before, x.node
    if not found.symmetric:
        at = node.layer(PADDINGS[len(size)](found.border, 0.0), at)
        padding = (0,) * len(size)
    options = (found.kernel, found.stride, padding, found.dilation, groups, bias is not None)
    layer = CONVOLUTIONS[len(size)](groups * weight.shape[1], weight.shape[0], *options, device="meta")
    return _emit(node, _filled(layer, weight, bias), at)


def transposed_convolution(node: Node) -> Value:
    """ConvTranspose in two dimensions."""
    x, size = images(node)
    weight, bias = node.weight(1), _bias(node)
    if len(size) != 2 or weight.dim() != 4:
        node.refuse("only transposed convolutions of images are supported")
    node.only("auto_pad", "NOTSET", "give pads")
    found = windows(node, size, weight.shape[2:])
    if not found.symmetric:
        node.refuse("its border must be the same at both sides")
    groups, behind = int(node.attribute("group", 1)), tuple(node.attribute("output_padding", [0, 0]))
    layer = nn.ConvTranspose2d(
        weight.shape[0],
        groups * weight.shape[1],
        found.kernel,  # type: ignore[arg-type]
        found.stride,  # type: ignore[arg-type]
        found.before,  # type: ignore[arg-type]
        behind,
        groups,
        bias is not None,
        found.dilation,  # type: ignore[arg-type]
        device="meta",
    )
    return _emit(node, _filled(layer, weight, bias), x.node)


def batch_normalization(node: Node) -> Value:
    """BatchNormalization with its running statistics."""
    node.only("training_mode", 0, "export the network in eval mode")
    node.only("spatial", 1, "statistics are those of channels")
    node.attribute("momentum", 0.9)  # of training
    node.attribute("is_test", 1)
    x = node.value()
    if not has_batch(x.shape) or len(x.shape) not in NORMALIZATIONS:
        node.refuse(f"its input must be [1, channels], with a length or height and width, got {list(x.shape)}")
    weight, bias, mean, variance = (node.weight(i) for i in range(1, 5))
    epsilon = float(node.attribute("epsilon", 1e-5))
    if not bool((variance + epsilon > 0).all()):
        node.fault("its variances must be positive")
    layer = NORMALIZATIONS[len(x.shape)](len(weight), eps=epsilon)
    layer.running_mean, layer.running_var = mean, variance
    return _emit(node, _filled(layer, weight, bias), x.node)


def _bias(node: Node) -> Tensor | None:
    found = node.numbers(2, None)
    return None if found is None else node.finite(found)


def _filled(layer: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def _emit(node: Node, layer: nn.Module, x: Any) -> Value:
    found = node.layer(layer, x)
    return node.emitter.value(found, (1, *node.emitter.probe(found).shape[1:]))
