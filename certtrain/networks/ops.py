"""The operations a traced network consists of.

An operation holds names, not tensors: parameters and buffers arrive as `values` (name -> tensor) with every call, so
the same operation serves one parameter vector, a population under `torch.func.vmap`, and any dtype.

Every linear operation offers four maps. With y = W x + b:

    forward(values, x)      W x + b
    forward_linear(...)     W x          boxes and other parts, where the offset belongs to another
    forward_abs(...)        |W| x        radii of intervals
    adjoint(values, rows)   rows W       back-substitution

`x` is [*lead, *input shape] and `rows` is [*lead, *output shape] with any number of leading axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from certtrain.networks.kernels import matmul, transposed_convolution

Values = Mapping[str, Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Op:
    """One operation of a `Graph`.

    Attributes:
        name: Where it stands in the network, as torch.fx or the module hierarchy names it.
        inputs: Indices of the operations it reads; smaller than its own index.
        shape: Shape of its output without the batch axis.
    """

    name: str
    inputs: tuple[int, ...]
    shape: Shape

    @property
    def size(self) -> int:
        """Number of elements of its output."""
        return prod(self.shape)


@dataclass(frozen=True)
class Input(Op):
    """The network's input."""


@dataclass(frozen=True)
class ReLU(Op):
    """max(x, 0), element by element."""


@dataclass(frozen=True)
class Add(Op):
    """Sum of two operations of the same shape (a residual connection)."""


def fold_lead(function: Callable[[Tensor], Tensor], x: Tensor, rank: int) -> Tensor:
    """Applies a function of [N, *shape] to [*lead, *shape], where shape has `rank` axes."""
    lead = x.shape[: x.dim() - rank]
    if len(lead) == 1:
        return function(x)
    out = function(x.reshape(-1, *x.shape[x.dim() - rank :]))
    return out.reshape(*lead, *out.shape[1:])


@dataclass(frozen=True)
class LinearMap(Op, ABC):
    """An affine operation y = W x + b; `in_shape` is the shape of x without leading axes."""

    in_shape: Shape

    @abstractmethod
    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        """W x."""

    @abstractmethod
    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        """|W| x."""

    @abstractmethod
    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        """Rows of a linear form in y, as rows in x."""

    def offset(self, values: Values) -> Tensor | None:
        """b, broadcastable to the output shape; None where there is none."""
        return None

    def forward(self, values: Values, x: Tensor) -> Tensor:
        """W x + b."""
        y = self.forward_linear(values, x)
        b = self.offset(values)
        return y if b is None else y + b


@dataclass(frozen=True)
class Linear(LinearMap):
    """torch.nn.Linear on a flat input."""

    weight: str
    bias: str | None

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return x @ values[self.weight].mT

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return x @ values[self.weight].abs().mT

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return matmul(rows, values[self.weight])

    def offset(self, values: Values) -> Tensor | None:
        return None if self.bias is None else values[self.bias]


@dataclass(frozen=True)
class Window:
    """A sliding window in two dimensions: what a convolution or a pooling does with positions."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)

    @property
    def extent(self) -> tuple[int, int]:
        """Pixels that the window spans in each dimension, dilation included."""
        return (
            self.dilation[0] * (self.kernel[0] - 1) + 1,
            self.dilation[1] * (self.kernel[1] - 1) + 1,
        )


@dataclass(frozen=True)
class WindowMap(LinearMap, ABC):
    """A linear map that is the same at every position of an image, up to the border."""

    window: Window

    @property
    def uniform(self) -> bool:
        """Whether every window, also at the border, has the same weights."""
        return True

    @abstractmethod
    def transpose_window(self, values: Values, patches: Tensor) -> Tensor:
        """Adjoint on small images of any size without border: [N, C_out, h, w] -> [N, C_in, h', w']."""


@dataclass(frozen=True)
class Conv2d(WindowMap):
    """torch.nn.Conv2d with zero padding."""

    weight: str
    bias: str | None
    groups: int

    def _convolve(self, weight: Tensor, x: Tensor) -> Tensor:
        w = self.window
        return fold_lead(lambda y: F.conv2d(y, weight, None, w.stride, w.padding, w.dilation, self.groups), x, rank=3)

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return self._convolve(values[self.weight], x)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self._convolve(values[self.weight].abs(), x)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return self._transpose(values, rows, self.window.padding, self.in_shape[1:])

    def _transpose(self, values: Values, rows: Tensor, padding: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
        w, weight = self.window, values[self.weight]
        return fold_lead(
            lambda y: transposed_convolution(y, weight, w.stride, padding, w.dilation, self.groups, size), rows, rank=3
        )

    def offset(self, values: Values) -> Tensor | None:
        return None if self.bias is None else values[self.bias][:, None, None]

    def transpose_window(self, values: Values, patches: Tensor) -> Tensor:
        w = self.window
        size = [(n - 1) * s + e for n, s, e in zip(patches.shape[2:], w.stride, w.extent, strict=True)]
        return self._transpose(values, patches, (0, 0), tuple(size))


@dataclass(frozen=True)
class AvgPool2d(WindowMap):
    """torch.nn.AvgPool2d. Its weights are not negative, so |W| x = W x."""

    ceil_mode: bool
    count_include_pad: bool

    def _pool(self, x: Tensor) -> Tensor:
        w = self.window
        return F.avg_pool2d(x, w.kernel, w.stride, w.padding, self.ceil_mode, self.count_include_pad)

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return fold_lead(self._pool, x, rank=3)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self.forward_linear(values, x)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        w = self.window

        def transpose(y: Tensor) -> Tensor:
            at = torch.zeros((y.shape[0], *self.in_shape), dtype=y.dtype, device=y.device)
            # The derivative of a linear map is its adjoint.
            return torch.ops.aten.avg_pool2d_backward(
                y, at, w.kernel, w.stride, w.padding, self.ceil_mode, self.count_include_pad, None
            )

        return fold_lead(transpose, rows, rank=3)

    @property
    def uniform(self) -> bool:
        """Whether every window, also at the border, divides by the same number."""
        return not self.ceil_mode and (self.count_include_pad or self.window.padding == (0, 0))

    def transpose_window(self, values: Values, patches: Tensor) -> Tensor:
        channels = patches.shape[1]
        kernel = torch.full(
            (channels, 1, *self.window.kernel),
            1.0 / prod(self.window.kernel),
            dtype=patches.dtype,
            device=patches.device,
        )
        return F.conv_transpose2d(patches, kernel, None, self.window.stride, groups=channels)


@dataclass(frozen=True)
class ChannelAffine(LinearMap, ABC):
    """y = scale · x + shift with one scale and one shift per channel (the first axis)."""

    @abstractmethod
    def scale(self, values: Values) -> Tensor:
        """[channels]."""

    @abstractmethod
    def shift(self, values: Values) -> Tensor:
        """[channels]."""

    def _spread(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *[1] * (len(self.shape) - 1))

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return x * self._spread(self.scale(values))

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return x * self._spread(self.scale(values).abs())

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return self.forward_linear(values, rows)

    def offset(self, values: Values) -> Tensor | None:
        return self._spread(self.shift(values))


@dataclass(frozen=True)
class Normalization(ChannelAffine):
    """(x - mean) / std with constants: `networks.Normalize`."""

    mean: str
    std: str

    def scale(self, values: Values) -> Tensor:
        return (1.0 / values[self.std]).expand(self.shape[0])  # one number may serve all channels

    def shift(self, values: Values) -> Tensor:
        return (-values[self.mean] / values[self.std]).expand(self.shape[0])


@dataclass(frozen=True)
class BatchNorm(ChannelAffine):
    """Batch normalisation in eval mode: the running statistics are constants (or arrive among the values)."""

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float

    def scale(self, values: Values) -> Tensor:
        inverse = torch.rsqrt(values[self.variance] + self.epsilon)
        return inverse if self.weight is None else values[self.weight] * inverse

    def shift(self, values: Values) -> Tensor:
        shift = -values[self.mean] * self.scale(values)
        return shift if self.bias is None else values[self.bias] + shift


@dataclass(frozen=True)
class Reshape(LinearMap):
    """Any reshape that keeps the batch axis: flatten, view, reshape."""

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[: x.dim() - len(self.in_shape)], *self.shape)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self.forward_linear(values, x)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return rows.reshape(*rows.shape[: rows.dim() - len(self.shape)], *self.in_shape)
