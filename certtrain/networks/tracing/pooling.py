"""Pooling over windows, by averages and by maxima, and over whole images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from certtrain.activations import WindowMaximum
from certtrain.networks.ops import Activation, AvgPool2d, Op, Reshape, Shape, Window, WindowGather
from certtrain.networks.tracing.builder import Builder, FunctionRule, ModuleRule
from certtrain.networks.tracing.moves import as_images
from certtrain.networks.tracing.recording import argument


def pair(value: Any, first: int | None = None) -> tuple[int, int]:
    """Two numbers from one or two; of one dimension, the last of two of which `first` is the first."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    if first is not None:
        return first, int(values[-1])
    return int(values[0]), int(values[-1])


def average(builder: Builder, node: fx.Node, layer: Any) -> None:
    """nn.AvgPool1d and nn.AvgPool2d, or an object with their attributes."""
    if getattr(layer, "divisor_override", None) is not None:
        builder.refuse(node, "divisor_override is not supported")
    flat = len(builder.in_shape(node)) == 2
    window = Window(*(pair(x, d if flat else None) for x, d in _sizes(layer)))
    flags = bool(layer.ceil_mode), bool(layer.count_include_pad)
    if flat:
        label = builder.label(node)
        as_images(builder, node, lambda before, after: [AvgPool2d(label, (), after, before, window, *flags)])
    else:
        builder.append(node, AvgPool2d(*builder.linear_head(node), window, *flags))


def _sizes(layer: Any) -> list[tuple[Any, int]]:
    """Kernel, stride and padding, each with what it is in a dimension of length one."""
    stride = layer.kernel_size if layer.stride is None else layer.stride
    return [(layer.kernel_size, 1), (stride, 1), (layer.padding, 0)]


def maximum(builder: Builder, node: fx.Node, layer: Any) -> None:
    """nn.MaxPool1d and nn.MaxPool2d, or an object with their attributes: windows side by side, then their maxima."""
    if layer.return_indices:
        builder.refuse(node, "return_indices is not supported")
    flat = len(builder.in_shape(node)) == 2
    window = Window(*(pair(x, d if flat else None) for x, d in (*_sizes(layer), (layer.dilation, 1))))
    label = builder.label(node)

    def make(before: Shape, after: Shape) -> list[Op]:
        function = _maximum_of(window, before, after)
        candidates = (before[0] * function.group, *after[1:])
        return [WindowGather(label, (), candidates, before, window), Activation(label, (), after, function)]

    if flat:
        as_images(builder, node, make)
    else:
        builder.chain(node, builder.inputs(node)[0], *make(builder.in_shape(node), builder.shape(node)))


def _maximum_of(window: Window, before: Shape, after: Shape) -> WindowMaximum:
    def taps(axis: int, k: int) -> tuple[bool, ...]:
        start = k * window.dilation[axis] - window.padding[axis]
        return tuple(0 <= start + i * window.stride[axis] < before[1 + axis] for i in range(after[1 + axis]))

    rows, columns = (tuple(taps(axis, k) for k in range(window.kernel[axis])) for axis in range(2))
    return WindowMaximum(rows, columns)


def adaptive_average(builder: Builder, node: fx.Node, layer: Any = None) -> None:
    """Adaptive average pooling to sizes that divide the layer's."""
    before, after = builder.in_shape(node)[1:], builder.shape(node)[1:]
    if any(n % m for n, m in zip(before, after, strict=True)):
        builder.refuse(node, f"its output {after} must divide its input {before}")
    kernel = tuple(n // m for n, m in zip(before, after, strict=True))
    average(builder, node, nn.AvgPool2d(kernel) if len(kernel) == 2 else nn.AvgPool1d(kernel[0]))


def mean(builder: Builder, node: fx.Node) -> None:
    """The mean over all positions of an image or signal."""
    shape = builder.in_shape(node)
    axes = argument(node, 1, "dim", None)
    axes = axes if isinstance(axes, (tuple, list)) else (axes,)
    rank = len(shape) + 1
    wanted = set(range(2, rank))
    if len(shape) not in (2, 3) or None in axes or {a % rank for a in axes} != wanted:
        builder.refuse(node, "only the mean over all positions of an image, x.mean((2, 3)), is supported")
    label, image = builder.label(node), (shape[0], *[1] * (3 - len(shape)), *shape[1:])
    one = (shape[0], 1, 1)
    window = Window((image[1], image[2]), (image[1], image[2]), (0, 0))
    before = [] if shape == image else [Reshape(label, (), image, shape)]
    after = [] if builder.shape(node) == one else [Reshape(label, (), builder.shape(node), one)]
    pool = AvgPool2d(label, (), one, image, window, False, True)
    builder.chain(node, builder.inputs(node)[0], *before, pool, *after)


def _with_defaults(names: tuple[str, ...], **defaults: Any) -> Any:
    """A function's arguments as attributes of an object, as a layer has them."""

    def read(node: fx.Node) -> Any:
        found = {name: argument(node, 1 + i, name, defaults.get(name)) for i, name in enumerate(names)}
        return type("Arguments", (), found)

    return read


_average_arguments = _with_defaults(
    ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
)
_maximum_arguments = _with_defaults(
    ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
)


def average_function(builder: Builder, node: fx.Node) -> None:
    """F.avg_pool1d and F.avg_pool2d."""
    average(builder, node, _average_arguments(node))


def maximum_function(builder: Builder, node: fx.Node) -> None:
    """F.max_pool1d and F.max_pool2d."""
    maximum(builder, node, _maximum_arguments(node))


MODULES: Mapping[type[nn.Module], ModuleRule] = {
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d), average),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d), maximum),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), adaptive_average),
}
FUNCTIONS: Mapping[Any, FunctionRule] = {
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d), average_function),
    **dict.fromkeys((F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d), maximum_function),
    **dict.fromkeys((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d), adaptive_average),
    **dict.fromkeys((torch.mean, "mean"), mean),
}
