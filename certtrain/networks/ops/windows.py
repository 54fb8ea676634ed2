"""Linear maps that are the same at every position of an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from certtrain.networks.kernels import convolution, transposed_convolution
from certtrain.networks.ops.base import LinearMap, Values, fold_lead, present


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
    """torch.nn.Conv2d with zero padding; of torch.nn.Conv1d, over images of height one."""

    weight: str
    bias: str | None
    groups: int

    @property
    def tensors(self) -> tuple[str, ...]:
        return present(self.weight, self.bias)

    def kernel(self, values: Values) -> Tensor:
        """[C_out, C_in / groups, height, width]."""
        weight = values[self.weight]
        return weight if weight.dim() == 4 else weight.unsqueeze(-2)

    def _convolve(self, weight: Tensor, x: Tensor) -> Tensor:
        w = self.window
        return fold_lead(lambda y: F.conv2d(y, weight, None, w.stride, w.padding, w.dilation, self.groups), x, rank=3)

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return self._convolve(self.kernel(values), x)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self._convolve(self.kernel(values).abs(), x)

    def forward(self, values: Values, x: Tensor) -> Tensor:
        w, weight = self.window, self.kernel(values)
        bias = None if self.bias is None else values[self.bias]

        def convolve(y: Tensor) -> Tensor:
            return convolution(y, weight, bias, w.stride, w.padding, w.dilation, self.groups)

        return fold_lead(convolve, x, rank=3)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return self._transpose(values, rows, self.window.padding, self.in_shape[1:])

    def _transpose(self, values: Values, rows: Tensor, padding: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
        w, weight = self.window, self.kernel(values)
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
        # Not channels last: torch's derivatives are then wrong on CUDA (2.11) where windows reach over the border.
        return F.avg_pool2d(x.contiguous(), w.kernel, w.stride, w.padding, self.ceil_mode, self.count_include_pad)

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
class ConvTranspose2d(LinearMap):
    """torch.nn.ConvTranspose2d: the adjoint of a convolution."""

    window: Window
    output_padding: tuple[int, int]
    weight: str
    bias: str | None
    groups: int

    @property
    def tensors(self) -> tuple[str, ...]:
        return present(self.weight, self.bias)

    def _transpose(self, weight: Tensor, x: Tensor) -> Tensor:
        w = self.window
        return fold_lead(
            lambda y: F.conv_transpose2d(
                y, weight, None, w.stride, w.padding, self.output_padding, self.groups, w.dilation
            ),
            x,
            rank=3,
        )

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return self._transpose(values[self.weight], x)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self._transpose(values[self.weight].abs(), x)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        w, weight = self.window, values[self.weight]

        def convolve(y: Tensor) -> Tensor:
            return F.conv2d(y, weight, None, w.stride, w.padding, w.dilation, self.groups)

        # An output padding as large as the stride leaves room for one window more.
        return fold_lead(convolve, rows, rank=3)[..., : self.in_shape[1], : self.in_shape[2]]

    def offset(self, values: Values) -> Tensor | None:
        return None if self.bias is None else values[self.bias][:, None, None]
