"""A network at parameters that stay what they are: its outputs at points, and derivatives by the points alone.

What attacks ask for, over and over. `evaluate.c` carries images side by side, one in each lane of a vector, so that
every convolution is as fast as a large one, also on its way back, and a step has two calls instead of dozens. Networks
that it does not know are evaluated by tensor operations.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certtrain.activations.relu import ReLU
from certtrain.bounds.executors.compiled.build import Evaluating, evaluating
from certtrain.bounds.executors.compiled.pool import parallel
from certtrain.networks.graph import Graph
from certtrain.networks.kernels import is_transformed
from certtrain.networks.ops import Activation, ChannelAffine, Conv2d, Input, Linear, Op, Reshape, Shape, Values

Pair = tuple[int, int]
# Bundles that read a matrix together: of a large one every further reading comes from memory.
MOST_JOINED = 12
# Weights of matrices above which they are not worth it without convolutions.
LARGE = 1 << 16


class Kind(IntEnum):
    """Kept in step with evaluate.c."""

    INPUT = 0
    FLATTENED = 1
    CHANNEL_SCALES = 2
    PRODUCTS = 3


@dataclass(frozen=True)
class Weight:
    """A kernel as it is read in one direction.

    Attributes:
        data: Contiguous.
        steps: Numbers from one tap, one number that is read and one that is written to the next.
    """

    data: Tensor
    steps: tuple[int, int, int]


@dataclass
class Layer:
    """A step of the way, with the ReLU behind it.

    Attributes:
        kind: What it does.
        shape: Channels, height and width of what it gives.
        kernel: Of its window.
        stride: Of its window.
        padding: Of its window.
        bias: [channels], if there is one.
        weights: Forwards and backwards; of scales [channels] twice; none of the input.
        rectified: Whether a ReLU follows.
        around: Zeros around its values: what the next window reads beyond them.
    """

    kind: Kind
    shape: tuple[int, int, int]
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    bias: Tensor | None = None
    weights: tuple[Weight, ...] = ()
    rectified: bool = False
    around: Pair = (0, 0)

    def borders(self, size: Sequence[int]) -> tuple[Pair, Pair]:
        """Zeros before and after derivatives: windows that would begin outside of what it reads, [height, width]."""
        if self.kind != Kind.PRODUCTS:
            return (0, 0), (0, 0)
        before = tuple((k - 1) // s for k, s in zip(self.kernel, self.stride, strict=True))
        last = [(n + p - 1) // s for n, p, s in zip(size, self.padding, self.stride, strict=True)]
        after = tuple(max(0, at - n + 1) for at, n in zip(last, self.shape[1:], strict=True))
        return (before[0], before[1]), (after[0], after[1])


def image_of(shape: Shape) -> tuple[int, int, int]:
    """Channels, height and width; what is no image has one pixel."""
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else (prod(shape), 1, 1)


def _linear(op: Linear, values: Values) -> Layer:
    weight = values[op.weight].contiguous()
    outputs, inputs = weight.shape
    ways = Weight(weight, (0, 1, inputs)), Weight(weight, (0, inputs, 1))
    return Layer(Kind.PRODUCTS, (outputs, 1, 1), bias=_given(values, op.bias), weights=ways)


def _convolution(op: Conv2d, values: Values) -> Layer | None:
    window, weight = op.window, op.kernel(values)
    if op.groups != 1 or window.dilation != (1, 1) or len(op.shape) != 3 or len(op.in_shape) != 3:
        return None
    outer, inner = weight.shape[:2]
    # [taps, read, written] in either direction
    forwards, backwards = weight.permute(2, 3, 1, 0).contiguous(), weight.permute(2, 3, 0, 1).contiguous()
    ways = Weight(forwards, (outer * inner, outer, 1)), Weight(backwards, (outer * inner, inner, 1))
    shape, bias = image_of(op.shape), _given(values, op.bias)
    return Layer(Kind.PRODUCTS, shape, window.kernel, window.stride, window.padding, bias, ways)


def _scales(op: ChannelAffine, values: Values) -> Layer:
    scale = Weight(op.scale(values).contiguous(), (0, 0, 0))
    return Layer(Kind.CHANNEL_SCALES, image_of(op.shape), bias=op.shift(values).contiguous(), weights=(scale, scale))


def _given(values: Values, name: str | None) -> Tensor | None:
    return None if name is None else values[name].contiguous()


LAYERS: Mapping[type[Op], Callable[[Any, Values], Layer | None]] = {
    Linear: _linear,
    Conv2d: _convolution,
    ChannelAffine: _scales,
}


def layers_of(graph: Graph, values: Values) -> list[Layer] | None:
    """The steps of a network; None where it branches, or does something else."""
    layers: list[Layer] = []
    for index, op in enumerate(graph.ops):
        if isinstance(op, Input) and index == 0:
            layers.append(Layer(Kind.INPUT, image_of(op.shape)))
        elif op.inputs != (index - 1,):
            return None
        elif isinstance(op, Reshape):
            if image_of(op.shape) == layers[-1].shape:
                continue
            if len(op.shape) != 1:
                return None
            layers.append(Layer(Kind.FLATTENED, image_of(op.shape)))
        elif isinstance(op, Activation) and isinstance(op.function, ReLU) and layers[-1].kind != Kind.INPUT:
            layers[-1].rectified = True
        else:
            made = next((make for kind, make in LAYERS.items() if isinstance(op, kind)), None)
            layer = None if made is None else made(op, values)
            if layer is None:
                return None
            layers.append(layer)
    return layers


@dataclass(frozen=True)
class Program:
    """The steps of a network, laid out.

    Attributes:
        layers: The steps.
        numbers: The structures `Layer` of evaluate.c, one in each row.
        joint: From which layer on everything has one pixel.
        space: Numbers in the memory of a bundle.
        code: Compiled.
    """

    layers: tuple[Layer, ...]
    numbers: np.ndarray
    joint: int
    space: int
    code: Evaluating

    @staticmethod
    def of(layers: Sequence[Layer], code: Evaluating) -> Program:
        """Says where everything is."""
        for layer, reader in pairwise(layers):
            layer.around = reader.padding
        rows, space = [], 0
        for index, layer in enumerate(layers):
            before, after = layer.borders(layers[index - 1].shape[1:])
            channels, *size = layer.shape
            row = [layer.kind, *layer.shape, *layer.around, *before, *after]
            row += [*layer.kernel, *layer.stride, *layer.padding, layer.rectified, _address(layer.bias)]
            for weight in layer.weights or (None, None):
                row += [0] * 4 if weight is None else [_address(weight.data), *weight.steps]
            values = channels * prod(n + 2 * a for n, a in zip(size, layer.around, strict=True)) * code.lanes
            derivatives = channels * prod(n + sum(ends) for n, *ends in zip(size, before, after, strict=True))
            rows.append([*row, space, space + values])
            space += values + derivatives * code.lanes
        images = [index for index, layer in enumerate(layers) if layer.shape[1:] != (1, 1)]
        # What follows an image reads it, or takes it apart.
        joint = min(images[-1] + 2, len(layers)) if images else 1
        return Program(tuple(layers), np.array(rows, dtype=np.int64), joint, space, code)


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


@dataclass
class Evaluation:
    """points [some, *shape] -> outputs [some, outputs], differentiable by the points, once.

    What it needs for derivatives stays in its memory, which all calls share.

    Attributes:
        program: What it does.
        dtype: Of all numbers.
        memory: Of all bundles, [bundles, space]; borders in it are zeros.
        calls: How often it was evaluated.
    """

    program: Program
    dtype: torch.dtype
    memory: Tensor = field(init=False)
    calls: int = 0

    def __post_init__(self) -> None:
        self.memory = torch.zeros((0, self.program.space), dtype=self.dtype)

    @staticmethod
    def of(graph: Graph, values: Values, like: Tensor) -> Evaluation | None:
        """Of a network; None where the compiled code does not know it, or its tensors.

        Args:
            graph: The network.
            values: Parameters and buffers, detached.
            like: Has the type and device of the points.
        """
        read = [like, *(values[name] for op in graph.ops for name in op.tensors)]
        plain = all(x.dtype == like.dtype and x.device.type == "cpu" for x in read) and not is_transformed(*read)
        # Of large matrices alone, torch's products are as fast.
        large = sum(prod(values[op.weight].shape) for op in graph.ops if isinstance(op, Linear)) > LARGE
        convolves = any(isinstance(op, Conv2d) for op in graph.ops)
        if not plain or isinstance(graph.ops[-1], Activation) or (large and not convolves):
            return None
        code = evaluating(like.dtype)
        layers = None if code is None else layers_of(graph, values)
        return None if code is None or layers is None else Evaluation(Program.of(layers, code), like.dtype)

    def __call__(self, points: Tensor) -> Tensor:
        """The outputs."""
        shape = self.program.layers[0].shape
        if points.dtype != self.dtype or points[:1].numel() not in (0, prod(shape)) or points.device.type != "cpu":
            raise ValueError(f"compiled evaluation: points must be {self.dtype} [some, {prod(shape)}] on the CPU")
        return _Evaluate.apply(points, self)

    def forwards(self, points: Tensor) -> Tensor:
        """The outputs, [some, outputs]."""
        self.calls += 1
        outputs = points.new_empty(len(points), self.program.layers[-1].shape[0])
        self._run(self.program.code.forwards, points, outputs, None, None)
        return outputs

    def backwards(self, points: Tensor, by_outputs: Tensor, call: int) -> Tensor:
        """The derivatives by the points, of something that has these by the outputs, of a call."""
        if call != self.calls:
            self.forwards(points)
        found = torch.empty_like(points, memory_format=torch.contiguous_format)
        self._run(self.program.code.backwards, points, None, by_outputs.contiguous(), found)
        return found

    def _run(self, entry: Any, points: Tensor, *others: Tensor | None) -> None:
        some, program = len(points), self.program
        if not some:
            return
        bundles = -(-some // program.code.lanes)
        if bundles > len(self.memory):
            self.memory = torch.zeros((bundles, program.space), dtype=self.dtype)
        threads = torch.get_num_threads()
        group = min(MOST_JOINED, -(-bundles // threads))
        numbers = [program.numbers.ctypes.data, len(program.layers), program.joint, some, group, program.space]
        task = np.array(
            [*numbers, self.memory.data_ptr(), points.data_ptr(), *(_address(x) for x in others)], dtype=np.int64
        )
        entry(ctypes.c_void_p(task.ctypes.data), min(threads, bundles), parallel())


class _Evaluate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, evaluation: Evaluation) -> Tensor:
        points = points.contiguous()
        outputs = evaluation.forwards(points)
        ctx.save_for_backward(points)
        ctx.evaluation, ctx.call = evaluation, evaluation.calls
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *by_outputs: Tensor) -> tuple[Tensor, None]:
        return ctx.evaluation.backwards(*ctx.saved_tensors, by_outputs[0], ctx.call), None
