"""The tables: what layers and functions are translated into. Activations have their own, in `certtrain.activations`."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from certtrain.networks.layers import Normalize
from certtrain.networks.ops import (
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Linear,
    Normalization,
    Op,
    Pad2d,
    Shape,
    Window,
)
from certtrain.networks.tracing import pooling
from certtrain.networks.tracing.arithmetic import ARITHMETIC
from certtrain.networks.tracing.builder import Builder, FunctionRule, ModuleRule
from certtrain.networks.tracing.moves import as_images, concatenate, gathering, move, move_layer, numbered
from certtrain.networks.tracing.pooling import pair
from certtrain.networks.tracing.recording import argument


def identity(builder: Builder, node: fx.Node, layer: nn.Module | None = None) -> None:
    """Nothing, in eval mode."""
    builder.alias(node)


def dropout(builder: Builder, node: fx.Node) -> None:
    """F.dropout, which must be told that it is off."""
    if argument(node, 2, "training", True):
        builder.refuse(node, "dropout must be off in eval mode: pass training=self.training")
    builder.alias(node)


def linear_layer(builder: Builder, node: fx.Node, layer: nn.Linear) -> None:
    """nn.Linear."""
    _linear(builder, node, layer.weight, layer.bias)


def linear_function(builder: Builder, node: fx.Node) -> None:
    """F.linear."""
    _linear(builder, node, _attribute(builder, node, 1, "weight"), _attribute(builder, node, 2, "bias"))


def _linear(builder: Builder, node: fx.Node, weight: Tensor | None, bias: Tensor | None) -> None:
    if len(builder.in_shape(node)) != 1:
        builder.refuse(node, f"it must act on flat inputs, not on shape {builder.in_shape(node)}: add Flatten")
    names = builder.name(node, weight), builder.optional_name(node, bias)
    builder.append(node, Linear(*builder.linear_head(node), *names))


def convolution_layer(builder: Builder, node: fx.Node, layer: nn.Conv1d | nn.Conv2d) -> None:
    """nn.Conv1d and nn.Conv2d."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    _convolution(builder, node, layer.weight, layer.bias, layer, mode)


def convolution_function(builder: Builder, node: fx.Node) -> None:
    """F.conv1d and F.conv2d."""
    names = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    given = {name: argument(node, 3 + i, name, default) for i, (name, default) in enumerate(names.items())}
    weight, bias = _attribute(builder, node, 1, "weight"), _attribute(builder, node, 2, "bias")
    _convolution(builder, node, weight, bias, type("Arguments", (), given), "constant")


def _convolution(
    builder: Builder, node: fx.Node, weight: Tensor | None, bias: Tensor | None, layer: Any, mode: str
) -> None:
    """A convolution; a border that is not the same at both sides, or not zero, is an operation before it."""
    names = builder.name(node, weight), builder.optional_name(node, bias)
    assert weight is not None
    flat, label = weight.dim() == 3, builder.label(node)
    kernel = pair(weight.shape[2:], 1 if flat else None)
    stride, dilation = (pair(x, 1 if flat else None) for x in (layer.stride, layer.dilation))
    window = Window(kernel, stride, (0, 0), dilation)
    border = _border(layer.padding, window, flat)
    if mode == "constant" and border[0] == border[1] and border[2] == border[3]:
        window, border = replace(window, padding=(border[2], border[0])), (0, 0, 0, 0)

    def make(before: Shape, after: Shape) -> list[Op]:
        padded = (before[0], before[1] + border[2] + border[3], before[2] + border[0] + border[1])
        ops: list[Op] = []
        if any(border):
            ops = [_padding(builder, node, before, padded, border, mode)]
        return [*ops, Conv2d(label, (), after, padded, window, *names, layer.groups)]

    if flat:
        as_images(builder, node, make)
    else:
        builder.chain(node, builder.inputs(node)[0], *make(builder.in_shape(node), builder.shape(node)))


def _border(padding: Any, window: Window, flat: bool) -> tuple[int, int, int, int]:
    """Left, right, top and bottom; "same" puts the odd pixel behind, as torch does."""
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        total = [extent - 1 for extent in window.extent]
        return total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2
    vertical, horizontal = pair(padding, 0 if flat else None)
    return horizontal, horizontal, vertical, vertical


def _padding(
    builder: Builder, node: fx.Node, shape: Shape, padded: Shape, border: tuple[int, int, int, int], mode: str
) -> Op:
    label = builder.label(node)
    if mode == "constant":
        return Pad2d(label, (), padded, shape, _shifted(border), border, 0.0)
    found = F.pad(numbered(shape), border, mode=mode)
    op = gathering(builder, node, node.all_input_nodes[0], found, padded, shape)
    assert op is not None
    return op


def _shifted(border: tuple[int, int, int, int]) -> Window:
    """The window of a border: every pixel reads the one that stands left and above by so much."""
    return Window((1, 1), (1, 1), (border[2], border[0]))


def transposed_convolution(builder: Builder, node: fx.Node, layer: nn.ConvTranspose2d) -> None:
    """nn.ConvTranspose2d."""
    if len(node.args) > 1 or "output_size" in node.kwargs:
        builder.refuse(node, "output_size is not supported: set output_padding")
    sizes = [pair(x) for x in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)]
    names = builder.name(node, layer.weight), builder.optional_name(node, layer.bias)
    window, behind = Window(*sizes), pair(layer.output_padding)
    builder.append(node, ConvTranspose2d(*builder.linear_head(node), window, behind, *names, layer.groups))


def constant_padding(builder: Builder, node: fx.Node, layer: Any) -> None:
    """nn.ConstantPad2d and nn.ZeroPad2d, or an object with their attributes."""
    padding = layer.padding
    border = (*padding, 0, 0) if len(padding) == 2 else tuple(padding)
    value = float(layer.value)
    if len(builder.in_shape(node)) == 3 and len(border) == 4:
        builder.append(node, Pad2d(*builder.linear_head(node), _shifted(border), border, value))
    elif value == 0:
        move(builder, node)
    else:
        builder.refuse(node, "a border that is not zero is supported around images only")


def padding_function(builder: Builder, node: fx.Node) -> None:
    """F.pad."""
    mode, value = argument(node, 2, "mode", "constant"), argument(node, 3, "value", None)
    if mode == "constant":
        given = {"padding": argument(node, 1, "pad", None), "value": value or 0.0}
        constant_padding(builder, node, type("Arguments", (), given))
    else:
        move(builder, node)


def batch_norm(builder: Builder, node: fx.Node, layer: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """nn.BatchNorm1d and nn.BatchNorm2d."""
    if layer.running_mean is None or layer.running_var is None:
        builder.refuse(node, "batch norm needs running statistics (track_running_stats=True)")
    affine = [builder.name(node, x) if layer.affine else None for x in (layer.weight, layer.bias)]
    mean, variance = builder.name(node, layer.running_mean), builder.name(node, layer.running_var)
    builder.append(node, BatchNorm(*builder.linear_head(node), affine[0], affine[1], mean, variance, layer.eps))


def normalization(builder: Builder, node: fx.Node, layer: Normalize) -> None:
    """`certtrain.networks.Normalize`."""
    names = builder.name(node, layer.mean), builder.name(node, layer.std)
    builder.append(node, Normalization(*builder.linear_head(node), *names))


def _attribute(builder: Builder, node: fx.Node, position: int, keyword: str) -> Tensor | None:
    value = argument(node, position, keyword, None)
    return builder.results[value] if isinstance(value, fx.Node) else None


MODULES: Mapping[type[nn.Module], ModuleRule] = {
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d), identity),
    nn.Linear: linear_layer,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d), convolution_layer),
    nn.ConvTranspose2d: transposed_convolution,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), batch_norm),
    Normalize: normalization,
    **dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d, nn.ZeroPad1d, nn.ZeroPad2d), constant_padding),
    **dict.fromkeys((nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d), move_layer),
    **dict.fromkeys((nn.CircularPad1d, nn.CircularPad2d, nn.PixelShuffle, nn.PixelUnshuffle), move_layer),
    **dict.fromkeys((nn.Flatten, nn.Unflatten, nn.ChannelShuffle, nn.UpsamplingNearest2d), move_layer),
    **pooling.MODULES,
}
RESHAPES = (torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten)
RESHAPE_METHODS = ("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten", "contiguous", "clone", "view_as")
MOVES = (torch.permute, torch.transpose, torch.swapaxes, torch.movedim, torch.chunk, torch.split, torch.narrow)
MORE_MOVES = (
    torch.select,
    torch.index_select,
    torch.flip,
    torch.roll,
    torch.unbind,
    torch.tile,
    torch.clone,
    operator.getitem,
)
SHUFFLES = (F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle, torch.pixel_shuffle)
MOVE_METHODS = ("permute", "transpose", "swapaxes", "movedim", "narrow", "select", "flip", "roll", "expand", "repeat")
FUNCTIONS: Mapping[Any, FunctionRule] = {
    **ARITHMETIC,
    **pooling.FUNCTIONS,
    **dict.fromkeys((*RESHAPES, *RESHAPE_METHODS, *MOVES, *MORE_MOVES, *SHUFFLES, *MOVE_METHODS, "tile"), move),
    **dict.fromkeys((torch.cat, torch.concat, torch.stack, torch.hstack, torch.vstack), concatenate),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d), dropout),
    F.linear: linear_function,
    **dict.fromkeys((F.conv1d, F.conv2d, torch.conv1d, torch.conv2d), convolution_function),
    F.pad: padding_function,
}
