"""A network's operations as auto_LiRPA reads them: in forms that its parser and its rules handle soundly."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.activations import ReLU
from certtrain.activations.sigmoid import Sigmoid
from certtrain.activations.tanh import Tanh
from certtrain.errors import UnsupportedOperation
from certtrain.networks.ops import (
    Activation,
    Add,
    AvgPool2d,
    ChannelAffine,
    Conv2d,
    Input,
    Linear,
    Op,
    Reshape,
    Values,
    WindowMap,
)
from certtrain.networks.rules import Propagation, Rules

# Torch wants a positive addend to the variance; this one changes no variance of 1.
TINY = 1e-30


class Replica(nn.Module):
    """A network's operations in forms that auto_LiRPA handles soundly, with arbitrary numbers for parameters.

    Every tensor is a parameter in a slot of its own. Every affine map of channels is a batch norm with
    trivial statistics: auto_LiRPA has patches for that, but not for subtraction and division. Every pooling
    is a convolution: its own rule for pooling takes the stride to be the kernel size.
    """

    def __init__(self, ops: tuple[Op, ...]) -> None:
        super().__init__()
        self.ops = ops
        self.slots = nn.ParameterDict()
        # Constants must be exact in whatever dtype they end up in.
        generator, exact = torch.Generator().manual_seed(0), torch.float64
        for i, op in enumerate(ops):
            for name, shape in _slot_shapes(op).items():
                numbers = torch.randn(shape, generator=generator, dtype=exact) / prod(shape[1:]) ** 0.5
                self.slots[f"{i}_{name}"] = nn.Parameter(numbers)
            if isinstance(op, ChannelAffine):
                self.register_buffer(f"{i}_mean", torch.zeros(op.shape[0], dtype=exact))
                self.register_buffer(f"{i}_variance", torch.ones(op.shape[0], dtype=exact))
            elif isinstance(op, AvgPool2d):
                kernel = torch.eye(op.shape[0], dtype=exact)[:, :, None, None] / prod(op.window.kernel)
                self.register_buffer(f"{i}_kernel", kernel.repeat(1, 1, *op.window.kernel))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, *input_shape] -> [batch, outputs]."""
        return Propagation(self.ops, REPLICAS, _Evaluation(self, x)).at(len(self.ops) - 1)


@dataclass(frozen=True)
class _Evaluation:
    replica: Replica
    x: Tensor

    def slot(self, index: int, name: str) -> Tensor:
        return self.replica.slots[f"{index}_{name}"]

    def linear(self, index: int, op: Linear, x: Tensor) -> Tensor:
        return F.linear(x, self.slot(index, "weight"), self.slot(index, "bias"))

    def convolution(self, index: int, op: Conv2d, x: Tensor) -> Tensor:
        w = op.window
        weight, bias = self.slot(index, "weight"), self.slot(index, "bias")
        return F.conv2d(x, weight, bias, w.stride, w.padding, w.dilation, op.groups)

    def average(self, index: int, op: AvgPool2d, x: Tensor) -> Tensor:
        kernel = self.replica.get_buffer(f"{index}_kernel")
        return F.conv2d(x, kernel, None, op.window.stride, op.window.padding)

    def channels(self, index: int, op: ChannelAffine, x: Tensor) -> Tensor:
        mean, variance = (self.replica.get_buffer(f"{index}_{name}") for name in ("mean", "variance"))
        return F.batch_norm(x, mean, variance, self.slot(index, "scale"), self.slot(index, "shift"), eps=TINY)

    def reshape(self, index: int, op: Reshape, x: Tensor) -> Tensor:
        # Written so that the parser records no batch size.
        return x.flatten(1) if len(op.shape) == 1 else x.reshape(-1, *op.shape)


# An operation that has no line here cannot be bounded by this backend.
REPLICAS: Rules[Callable[..., Tensor]] = Rules(
    "auto_LiRPA",
    {
        Input: lambda run, index, op: run.x,
        Add: lambda run, index, op, *terms: reduce(operator.add, terms),
        Activation: lambda run, index, op, z: op.function(z),
        Linear: _Evaluation.linear,
        Conv2d: _Evaluation.convolution,
        AvgPool2d: _Evaluation.average,
        ChannelAffine: _Evaluation.channels,
        Reshape: _Evaluation.reshape,
    },
)
# Of activations, those that its own rules bound.
FUNCTIONS = (ReLU, Sigmoid, Tanh)


def _slot_shapes(op: Op) -> Mapping[str, tuple[int, ...]]:
    """Shapes of the tensors that an operation needs."""
    match op:
        case Linear():
            return {"weight": (op.shape[0], op.in_shape[0]), "bias": (op.shape[0],)}
        case Conv2d():
            weight = (op.shape[0], op.in_shape[0] // op.groups, *op.window.kernel)
            return {"weight": weight, "bias": (op.shape[0],)}
        case ChannelAffine():
            return {"scale": (op.shape[0],), "shift": (op.shape[0],)}
        case _:
            return {}


def slot_values(ops: tuple[Op, ...], values: Values) -> dict[str, Tensor]:
    """The tensors for a replica's slots, by the slot's name."""
    slots: dict[str, Tensor] = {}
    for i, op in enumerate(ops):
        match op:
            case Linear() | Conv2d():
                weight = op.kernel(values) if isinstance(op, Conv2d) else values[op.weight]
                slots[f"{i}_weight"] = weight
                slots[f"{i}_bias"] = weight.new_zeros(len(weight)) if op.bias is None else values[op.bias]
            case ChannelAffine():
                slots[f"{i}_scale"], slots[f"{i}_shift"] = op.scale(values), op.shift(values)
    return slots


def check_operations(ops: tuple[Op, ...]) -> None:
    """Refuses what a replica cannot express or auto_LiRPA's rules would get wrong.

    Raises:
        UnsupportedOperation: Names the first such operation.
    """
    for op in ops:
        if isinstance(op, AvgPool2d) and not op.uniform:
            reason = "the divisor of its windows differs at the border"
        elif isinstance(op, WindowMap) and op.window.dilation[0] != op.window.dilation[1]:
            reason = f"its dilation {op.window.dilation} is not the same in both dimensions"
        elif not isinstance(op, tuple(REPLICAS.table)):
            reason = "it has no translation"
        elif isinstance(op, Activation) and not isinstance(op.function, FUNCTIONS):
            reason = f"its rules do not know {type(op.function).__name__}"
        else:
            continue
        raise UnsupportedOperation(
            f"operation '{op.name}' ({type(op).__name__}) cannot be bounded by auto_LiRPA: {reason}; "
            "use relaxation.backend=native"
        )
