"""How many rounded operations lead to an element of each operation's output, and to a row's coefficients behind it.

An operation that is not in the table is refused: nobody has counted its rounding errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from certtrain.networks.ops import (
    AvgPool2d,
    BatchNorm,
    ChannelAffine,
    ChannelConstants,
    ChannelGather,
    Conv2d,
    ConvTranspose2d,
    ElementConstants,
    Gather,
    Linear,
    LinearMap,
    Normalization,
    Op,
    Pad2d,
    Reshape,
    Values,
    WindowGather,
)
from certtrain.networks.rules import Rules


@dataclass(frozen=True)
class Terms:
    """Rounded operations of one linear operation.

    Attributes:
        forward: That lead from its inputs to an element of its output: its products are summed in any order, fused with
            additions or not. Zero where elements are only moved.
        backward: That lead from coefficients of a row over its output to one of those over its input.
    """

    forward: int
    backward: int


def _window(op: Conv2d | ConvTranspose2d) -> Terms:
    taps = prod(op.window.kernel)
    return Terms(op.in_shape[0] // op.groups * taps + 2, op.shape[0] // op.groups * taps + 2)


# Counts are a few larger than those of any usual implementation: constants rounded to float32, reciprocals instead of
# divisions, a matrix times a factor (Gemm of ONNX), batch norm as (x - mean) / sqrt(variance + epsilon) · weight + bias
# or as scale · x + shift, with a reciprocal square root that is off by two units in the last place.
TERMS: Rules[Callable[..., Terms]] = Rules(
    "bounds of rounding errors",
    {
        Linear: lambda op: Terms(op.in_shape[0] + 4, op.shape[0] + 4),
        Conv2d: _window,
        ConvTranspose2d: _window,
        AvgPool2d: lambda op: Terms(prod(op.window.kernel) + 4, prod(op.window.kernel) + 4),
        BatchNorm: lambda op: Terms(16, 16),
        Normalization: lambda op: Terms(6, 6),
        ChannelConstants: lambda op: Terms(6, 6),
        ElementConstants: lambda op: Terms(6, 6),
        Reshape: lambda op: Terms(0, 0),
        Gather: lambda op: Terms(0, op.size),
        ChannelGather: lambda op: Terms(0, op.shape[0]),
        WindowGather: lambda op: Terms(0, prod(op.window.kernel)),
        Pad2d: lambda op: Terms(0, 1),
    },
)
# The largest 1 / sqrt(variance + epsilon), as a share of `units.LARGEST`: a variance or an epsilon that counts as zero,
# since it is below the smallest normal number, is then less than the unit roundoff of their sum.
STEEPEST = 2.0**-9


def offset_size(op: LinearMap, values: Values) -> Tensor | None:
    """Sum of the absolute values that the offset is made of, broadcastable to the output: in batch norm they cancel."""
    offset = op.offset(values)
    if offset is None or not isinstance(op, BatchNorm):
        return None if offset is None else offset.abs()
    own = torch.zeros_like(offset) if op.bias is None else values[op.bias].abs().reshape(offset.shape)
    return own + (values[op.mean] * op.scale(values)).abs().reshape(offset.shape)


def largest_constant(op: Op, values: Values) -> Tensor:
    """The largest number, a scalar, among an operation's parameters and factors that are computed from them.

    None may be above `units.LARGEST`; the reciprocal root of batch norm counts as more than it is.
    """
    found = [values[name] for name in op.tensors]
    if isinstance(op, ChannelAffine):
        found.append(op.scale(values))
    if isinstance(op, BatchNorm):
        found.append(torch.rsqrt(values[op.variance] + op.epsilon) / STEEPEST)
    if isinstance(op, ElementConstants):
        found.append(op.factor.tensor(values))
    sizes = [x.abs().amax() for x in found]
    return torch.stack(sizes).amax() if sizes else torch.zeros(())
