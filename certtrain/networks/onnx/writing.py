"""From a traced network to an ONNX file: one rule for every kind of operation, as every traversal has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certtrain.activations import WindowMaximum
from certtrain.errors import UnsupportedOperation
from certtrain.files import replacing
from certtrain.networks.graph import Graph, Params, parameters
from certtrain.networks.onnx.files import onnx_package
from certtrain.networks.ops import (
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    ChannelConstants,
    ChannelGather,
    Constant,
    Conv2d,
    ConvTranspose2d,
    ElementConstants,
    Gather,
    Input,
    Linear,
    Normalization,
    Pad2d,
    Reshape,
    Shape,
    Window,
    WindowGather,
)
from certtrain.networks.rules import Propagation, Rules
from certtrain.networks.tracing import trace
from certtrain.networks.tracing.recording import blank

# Understood by all tools of VNN-COMP since 2021.
OPSET, IR_VERSION = 13, 8


def to_onnx(module: nn.Module, input_shape: Sequence[int], path: str | os.PathLike[str]) -> None:
    """Writes a network, in eval mode and in its own type, for one input: [1, *input_shape] -> [1, outputs].

    Slopes of leaky ReLUs and epsilons of batch norm are float32 in ONNX files, whatever the network's type.

    Args:
        module: Any network that `certtrain.networks.trace` takes; normalisation layers are written with it.
        input_shape: Shape of one input without the batch axis.
        path: The file; its folder exists.

    Raises:
        UnsupportedOperation: If an operation has no rule; names it.
        ConfigError: If onnx is not installed.
    """
    onnx = onnx_package()
    graph = trace(module, input_shape)
    like = blank(module, graph.input_shape)
    values = {name: value.detach() for name, value in graph.values(parameters(module), like).items()}
    writer = _Writer(onnx, graph, values, like)
    last = Propagation(graph.ops, WRITING, writer).at(len(graph.ops) - 1)
    kind = onnx.helper.np_dtype_to_tensor_dtype(like.numpy(force=True).dtype)
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, [1, *shape])
        for name, shape in (("input", graph.input_shape), ("output", (graph.num_outputs,)))
    ]
    writer.nodes.append(onnx.helper.make_node("Identity", [last], ["output"], "output"))
    made = onnx.helper.make_graph(writer.nodes, type(module).__name__, ends[:1], ends[1:], writer.initializers)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(made, producer_name="certtrain", opset_imports=opsets, ir_version=IR_VERSION)
    with replacing(Path(path)) as partial:
        partial.write_bytes(model.SerializeToString())


@dataclass
class _Writer:
    """Nodes and constants so far; rules return the name of their result, which has the shape [1, *op.shape].

    Attributes:
        onnx: The package.
        graph: What is written.
        values: Its parameters and buffers.
        like: A tensor of its type.
        nodes: So far.
        initializers: So far.
    """

    onnx: Any
    graph: Graph
    values: Params
    like: Tensor
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node and returns the name of its result."""
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value: Tensor | Sequence[int]) -> str:
        """Adds weights, or whole numbers, and returns their name."""
        array = value.numpy(force=True) if isinstance(value, Tensor) else np.array(value, dtype=np.int64)
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def number(self, value: float) -> str:
        """Adds a number in the network's type and returns its name."""
        return self.constant(self.like.new_tensor(value))

    def tensors(self, *names: str | None) -> list[str]:
        """Adds parameters by their names, without those that are not there."""
        return [self.constant(self.values[name]) for name in names if name is not None]

    def reshaped(self, x: str, shape: Shape) -> str:
        return self.node("Reshape", [x, self.constant([1, *shape])])

    def input(self, index: int, op: Input) -> str:
        return "input"

    def add(self, index: int, op: Add, first: str, *others: str) -> str:
        for other in others:
            first = self.node("Add", [first, other])
        return first

    def linear(self, index: int, op: Linear, x: str) -> str:
        return self.node("Gemm", [x, *self.tensors(op.weight, op.bias)], transB=1)

    def convolution(self, index: int, op: Conv2d, x: str) -> str:
        weight = self.constant(op.kernel(self.values))
        return self.node("Conv", [x, weight, *self.tensors(op.bias)], group=op.groups, **_window(op.window))

    def transposed_convolution(self, index: int, op: ConvTranspose2d, x: str) -> str:
        options = {"group": op.groups, "output_padding": op.output_padding, **_window(op.window)}
        return self.node("ConvTranspose", [x, *self.tensors(op.weight, op.bias)], **options)

    def average(self, index: int, op: AvgPool2d, x: str) -> str:
        if not op.ceil_mode:
            options = {name: value for name, value in _window(op.window).items() if name != "dilations"}
            return self.node("AveragePool", [x], count_include_pad=int(op.count_include_pad), **options)
        # ONNX and its tools disagree about windows that begin inside and end outside of the border: sums, and by what
        # each is to be divided.
        w, channels = op.window, op.shape[0]
        spans = zip(op.shape[1:], w.kernel, w.stride, w.padding, op.in_shape[1:], strict=True)
        after = [max(0, (n - 1) * s + k - p - size) for n, k, s, p, size in spans]
        kernel, image = self.like.new_ones((1, 1, *w.kernel)), self.like.new_ones((1, *op.in_shape))
        padded = nn.functional.pad(image[:, :1], (w.padding[1], after[1], w.padding[0], after[0]))
        counts = nn.functional.conv2d(padded, kernel, None, w.stride)
        shares = op.forward_linear(self.values, image)[:, :1] / counts.clamp(min=1)
        windows = {**_window(w), "pads": [*w.padding, *after]}
        total = self.node("Conv", [x, self.constant(kernel.repeat(channels, 1, 1, 1))], group=channels, **windows)
        return self.node("Mul", [total, self.constant(shares)])

    def padding(self, index: int, op: Pad2d, x: str) -> str:
        left, right, top, bottom = op.border
        pads = self.constant([0, 0, top, left, 0, 0, bottom, right])
        return self.node("Pad", [x, pads, self.number(op.constant)])

    def reshape(self, index: int, op: Reshape, x: str) -> str:
        return self.reshaped(x, op.shape)

    def gather(self, index: int, op: Gather, x: str) -> str:
        flat = self.reshaped(x, (-1,)) if len(op.in_shape) > 1 else x
        taken = self._taken(flat, op.index, (1, -1))
        return self.reshaped(taken, op.shape) if len(op.shape) > 1 else taken

    def channels(self, index: int, op: ChannelGather, x: str) -> str:
        return self._taken(x, torch.tensor(op.channels), (1, -1, 1, 1))

    def _taken(self, x: str, index: Tensor, shape: tuple[int, ...]) -> str:
        """Elements of the first axis, zeros where the index is negative; the mask has the given shape."""
        taken = self.node("Gather", [x, self.constant(index.clamp(min=0))], axis=1)
        if bool((index >= 0).all()):
            return taken
        return self.node("Mul", [taken, self.constant((index >= 0).to(self.like.dtype).reshape(shape))])

    def normalization(self, index: int, op: Normalization, x: str) -> str:
        shape = (1, -1, *[1] * (len(op.shape) - 1))
        mean, std = (self.constant(self.values[name].reshape(shape)) for name in (op.mean, op.std))
        return self.node("Div", [self.node("Sub", [x, mean]), std])

    def batch_norm(self, index: int, op: BatchNorm, x: str) -> str:
        mean = self.values[op.mean]
        weight = torch.ones_like(mean) if op.weight is None else self.values[op.weight]
        bias = torch.zeros_like(mean) if op.bias is None else self.values[op.bias]
        inputs = [self.constant(v) for v in (weight, bias, mean, self.values[op.variance])]
        return self.node("BatchNormalization", [x, *inputs], epsilon=op.epsilon)

    def constants(self, index: int, op: ChannelConstants | ElementConstants, x: str) -> str:
        for operator, constant, neutral in (("Mul", op.factor, 1.0), ("Add", op.term, 0.0)):
            if constant != Constant(neutral):
                tensor = constant.tensor(self.values)
                rank = 1 + len(op.shape)
                aligned = tensor.reshape(*[1] * (rank - tensor.dim()), *tensor.shape)
                x = self.node(operator, [x, self.constant(aligned)])
        return x

    def window_gather(self, index: int, op: WindowGather, x: str) -> str:
        """Nothing: the maximum that reads it takes its windows from the image itself."""
        readers = [self.graph.ops[i] for i in self.graph.readers(index)]
        if not all(isinstance(r, Activation) and isinstance(r.function, WindowMaximum) for r in readers):
            raise UnsupportedOperation(f"operation '{op.name}' at position {index} is read by more than a maximum")
        return x

    def activation(self, index: int, op: Activation, x: str) -> str:
        function = op.function
        if isinstance(function, WindowMaximum):
            return self._maximum(op, x)
        write = FUNCTIONS.get(type(function).__name__)
        if write is None:
            kind = type(function).__name__
            raise UnsupportedOperation(f"operation '{op.name}' ({kind}) at position {index} has no rule for ONNX files")
        return write(self, function, x)

    def _maximum(self, op: Activation, x: str) -> str:
        source = self.graph.ops[op.inputs[0]]
        assert isinstance(source, WindowGather)
        w = source.window
        spans = zip(op.shape[1:], w.stride, w.extent, w.padding, source.in_shape[1:], strict=True)
        # The same border at both sides where that gives as many windows; ceil_mode may have made one more, or less.
        after = [p if (n + 2 * p - e) // s + 1 == m else max(0, (m - 1) * s + e - p - n) for m, s, e, p, n in spans]
        return self.node("MaxPool", [x], **{**_window(w), "pads": [*w.padding, *after]})


def _window(w: Window) -> dict[str, list[int]]:
    return {
        "kernel_shape": list(w.kernel),
        "strides": list(w.stride),
        "pads": [*w.padding, *w.padding],
        "dilations": list(w.dilation),
    }


def _clip(writer: _Writer, function: Any, x: str) -> str:
    ends = [writer.number(e) if np.isfinite(e) else "" for e in (function.smallest, function.largest)]
    return writer.node("Clip", [x, *ends])


FUNCTIONS: dict[str, Callable[[_Writer, Any, str], str]] = {
    "ReLU": lambda writer, function, x: writer.node("Relu", [x]),
    "LeakyReLU": lambda writer, function, x: writer.node("LeakyRelu", [x], alpha=function.negative_slope),
    "Clip": _clip,
    "Hardsigmoid": lambda writer, function, x: writer.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5),
    "Sigmoid": lambda writer, function, x: writer.node("Sigmoid", [x]),
    "Tanh": lambda writer, function, x: writer.node("Tanh", [x]),
}

WRITING: Rules[Callable[..., str]] = Rules(
    "ONNX files",
    {
        Input: _Writer.input,
        Add: _Writer.add,
        Activation: _Writer.activation,
        AvgPool2d: _Writer.average,
        BatchNorm: _Writer.batch_norm,
        ChannelConstants: _Writer.constants,
        ChannelGather: _Writer.channels,
        Conv2d: _Writer.convolution,
        ConvTranspose2d: _Writer.transposed_convolution,
        ElementConstants: _Writer.constants,
        Gather: _Writer.gather,
        Linear: _Writer.linear,
        Normalization: _Writer.normalization,
        Pad2d: _Writer.padding,
        Reshape: _Writer.reshape,
        WindowGather: _Writer.window_gather,
    },
)
