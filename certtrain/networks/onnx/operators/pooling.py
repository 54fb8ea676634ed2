"""Averages and maxima over windows, over whole images, and over any axes."""

from __future__ import annotations

import operator
from math import prod
from typing import Any

import torch
from torch import fx, nn

from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.operators.windows import Sizes, Windows, images, windows
from certtrain.networks.onnx.values import Value, has_batch

MAXIMA: dict[int, type[Any]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
AVERAGES: dict[int, type[Any]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
GLOBAL: dict[int, type[Any]] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}
REPEATED: dict[int, type[Any]] = {1: nn.ReplicationPad1d, 2: nn.ReplicationPad2d}
ZEROS: dict[int, type[Any]] = {1: nn.ConstantPad1d, 2: nn.ConstantPad2d}


def max_pool(node: Node) -> Value:
    """MaxPool."""
    x, size = images(node)
    found, ceiling = windows(node, size, ()), node.attribute("ceil_mode", 0)
    node.attribute("storage_order", 0)  # of indices, which nothing can read
    up, at, padding = _rounds_up(found, size, ceiling), x.node, found.before
    if not _is_torchs(found):
        if up or max(found.dilation) > 1:
            node.refuse("a border of its own at each side is supported without ceil_mode and dilations only")
        # A window that reaches over the edge has the pixel at the edge in it: repeating that changes no maximum.
        at, padding = node.layer(REPEATED[len(size)](tuple(found.border)), at), (0,) * len(size)
    layer = MAXIMA[len(size)](found.kernel, found.stride, padding, found.dilation, ceil_mode=up)
    return _emit(node, layer, at)


def average_pool(node: Node) -> Value:
    """AveragePool."""
    x, size = images(node)
    found, ceiling = windows(node, size, ()), node.attribute("ceil_mode", 0)
    counted = bool(node.attribute("count_include_pad", 0))
    if max(found.dilation) > 1:
        node.refuse("dilations are not supported")
    if _rounds_up(found, size, ceiling):
        node.refuse("ceil_mode is not supported where it adds windows")
    at, padding = x.node, found.before
    if not _is_torchs(found):
        if not counted:
            node.refuse("a border of its own at each side is supported with count_include_pad=1 only")
        at, padding = node.layer(ZEROS[len(size)](tuple(found.border), 0.0), at), (0,) * len(size)
    return _emit(node, AVERAGES[len(size)](found.kernel, found.stride, padding, count_include_pad=counted), at)


def _is_torchs(found: Windows) -> bool:
    """Whether torch has such a border: the same at both sides, at most half a window."""
    return found.symmetric and all(p <= k // 2 for p, k in zip(found.before, found.kernel, strict=True))


def _rounds_up(found: Windows, size: Sizes, ceiling: int) -> bool:
    """Whether ceil_mode makes a difference."""
    spans = zip(size, found.before, found.after, found.kernel, found.dilation, found.stride, strict=True)
    return bool(ceiling) and any((n + p + q - d * (k - 1) - 1) % s for n, p, q, k, d, s in spans)


def global_average_pool(node: Node) -> Value:
    """GlobalAveragePool."""
    x, size = images(node)
    return _emit(node, GLOBAL[len(size)](1), x.node)


def global_max_pool(node: Node) -> Value:
    """GlobalMaxPool."""
    x, size = images(node)
    return _emit(node, MAXIMA[len(size)](size), x.node)


def _emit(node: Node, layer: nn.Module, x: fx.Node) -> Value:
    found = node.layer(layer, x)
    return node.emitter.value(found, (1, *node.emitter.probe(found).shape[1:]))


def reduce_mean(node: Node) -> Value:
    """ReduceMean over any axes."""
    return _reduce(node)[0]


def reduce_sum(node: Node) -> Value:
    """ReduceSum over any axes: the mean times their number."""
    mean, number = _reduce(node)
    return node.emitter.value(node.emitter.call(operator.mul, mean.node, float(number)), mean.shape)


def _reduce(node: Node) -> tuple[Value, int]:
    """The mean, and of how many elements it is."""
    x, emitter = node.value(), node.emitter
    rank, keep = len(x.shape), node.attribute("keepdims", 1)
    given = node.option("axes", 1, None)
    if not given:
        given = [] if node.attribute("noop_with_empty_axes", 0) else list(range(rank))
    node.attribute("noop_with_empty_axes", 0)
    axes = {node.axis(int(a), rank) for a in given}
    lengths = [1 if i in axes else n for i, n in enumerate(x.shape)]
    out = [n for i, n in enumerate(lengths) if keep or i not in axes]
    # Torch's axes: the batch, of length one in ONNX, is not averaged over.
    offset = 0 if has_batch(x.shape) else 1
    over = [a + offset for a in sorted(axes) if a + offset > 0]
    if not over:
        return emitter.reshaped(x.node, out), 1
    if rank == 4 and over == [2, 3]:
        return emitter.reshaped(node.layer(nn.AdaptiveAvgPool2d(1), x.node), out), prod(x.shape[2:])
    kept = [i for i in range(1, rank + offset) if i not in over]
    number = prod(x.shape[a - offset] for a in over)
    at = x.node
    if [*kept, *over] != list(range(1, rank + offset)):
        at = emitter.call("permute", at, 0, *kept, *over)
    at = emitter.call("reshape", at, -1, prod(x.shape[i - offset] for i in kept), number)
    return emitter.reshaped(emitter.call(torch.mean, at, 2), out), number
