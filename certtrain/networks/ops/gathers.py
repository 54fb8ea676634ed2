"""Linear maps that only move the pixels and channels of an image, the same at every position."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from certtrain.networks.ops.base import Values, fold_lead, reference
from certtrain.networks.ops.windows import WindowMap


@dataclass(frozen=True)
class ChannelGather(WindowMap):
    """Channels in another order, some of them, or zeros in their place.

    Attributes:
        channels: For each channel of the output, the one that it reads; -1 for zeros.
    """

    channels: tuple[int, ...]

    @property
    def keeps_boxes(self) -> bool:
        read = [c for c in self.channels if c >= 0]
        return len(set(read)) == len(read)

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return _take(x, self.channels, -3)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self.forward_linear(values, x)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return _put(rows, self.channels, self.in_shape[0], -3)

    def transpose_window(self, values: Values, patches: Tensor) -> Tensor:
        return self.adjoint(values, patches)


def _take(x: Tensor, index: tuple[int, ...], axis: int) -> Tensor:
    at = torch.tensor(index, device=x.device)
    taken = x.index_select(axis, at.clamp(min=0))
    if min(index) >= 0:
        return taken
    return taken * (at >= 0).to(x.dtype).reshape(-1, *[1] * (-1 - axis))


def _put(rows: Tensor, index: tuple[int, ...], size: int, axis: int) -> Tensor:
    """The adjoint of `_take`."""
    at = torch.tensor(index, device=rows.device)
    if min(index) < 0:
        rows = rows * (at >= 0).to(rows.dtype).reshape(-1, *[1] * (-1 - axis))
    shape = list(rows.shape)
    shape[axis] = size
    return rows.new_zeros(shape).index_add(axis, at.clamp(min=0), rows)


@dataclass(frozen=True)
class Pad2d(WindowMap):
    """Constant pixels around an image, at each side their own number; negative ones cut.

    Attributes:
        border: Pixels at the left, right, top and bottom.
        constant: What they hold.
    """

    border: tuple[int, int, int, int]
    constant: float

    @property
    def uniform(self) -> bool:
        """Whether every window is the same: nothing is cut, and the border adds nothing."""
        return min(self.border) >= 0 and self.constant == 0

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return F.pad(x, self.border)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self.forward_linear(values, x)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return F.pad(rows, [-n for n in self.border])

    def offset(self, values: Values) -> Tensor | None:
        if self.constant == 0:
            return None
        like = reference(values)
        inside = like.new_zeros(self.in_shape)
        return F.pad(inside, self.border, value=self.constant)

    def transpose_window(self, values: Values, patches: Tensor) -> Tensor:
        return patches


@dataclass(frozen=True)
class WindowGather(WindowMap):
    """The pixels of every window side by side: channel c becomes channels c · k, ..., c · k + k - 1 for k pixels.

    What lies outside the image is zero.
    """

    def _border(self) -> list[int]:
        """Left, right, top and bottom: as far as the windows reach."""
        w, border = self.window, []
        for axis in (1, 0):
            before, count = w.padding[axis], self.shape[1 + axis]
            span = (count - 1) * w.stride[axis] + w.extent[axis]
            border += [before, span - before - self.in_shape[1 + axis]]
        return border

    def _one_hot(self, like: Tensor) -> Tensor:
        size = prod(self.window.kernel)
        eye = torch.eye(size, dtype=like.dtype, device=like.device).reshape(size, 1, *self.window.kernel)
        return eye.repeat(self.in_shape[0], 1, 1, 1)

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        w, border = self.window, self._border()
        return fold_lead(
            lambda y: F.unfold(F.pad(y, border), w.kernel, w.dilation, 0, w.stride).unflatten(-1, self.shape[1:]), x, 3
        )

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self.forward_linear(values, x)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        border = [-n for n in self._border()]
        return F.pad(fold_lead(lambda y: self.transpose_window(values, y), rows, 3), border)

    def transpose_window(self, values: Values, patches: Tensor) -> Tensor:
        w = self.window
        return F.conv_transpose2d(
            patches, self._one_hot(patches), None, w.stride, groups=self.in_shape[0], dilation=w.dilation
        )
