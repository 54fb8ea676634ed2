"""Linear forms in one layer's outputs, carried back layer by layer.

Two representations. `DenseRows` holds a coefficient for every element of the layer. `PatchRows` belongs to forms that
came from the positions of an image: each holds only its receptive field, which for the second convolution of a small
network is a tenth of the image (auto_LiRPA's patches mode rests on the same observation).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from certtrain.bounds.affine import contract
from certtrain.bounds.slopes import ReluLines
from certtrain.networks.ops import AvgPool2d, ChannelAffine, LinearMap, Shape, Values, WindowMap


class Rows(ABC):
    """Linear forms in the output of one operation; the batch axis is 1 until they depend on the image."""

    @abstractmethod
    def linear(self, op: LinearMap, values: Values) -> Rows:
        """Rows in the input of an operation W x + b: rows W. The constant, rows b, is `value(b)`."""

    @abstractmethod
    def relu(self, lines: ReluLines) -> tuple[Rows, Tensor]:
        """Rows in the ReLU's input whose forms are never larger, and the constants [batch, rows]."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """Each form's value at a point [batch or 1, *shape]: [batch or 1, rows]."""

    @abstractmethod
    def spread(self, radius: Tensor) -> Tensor:
        """How far each form moves within a radius [batch, *shape] around any centre: [batch, rows]."""

    @abstractmethod
    def dense(self) -> DenseRows:
        """The same forms with every coefficient spelled out."""

    @abstractmethod
    def __add__(self, other: Rows) -> Rows:
        """Sum of forms in the same layer (where residual branches meet)."""


def _follow_lines(rows: Tensor, lower_slope: Tensor, upper_slope: Tensor) -> tuple[Tensor, Tensor]:
    """Positive coefficients take the lower line, negative ones the upper: the new rows, and the negative part."""
    positive, negative = rows.clamp(min=0), rows.clamp(max=0)
    return torch.addcmul(positive * lower_slope, negative, upper_slope), negative


@dataclass(frozen=True)
class DenseRows(Rows):
    """`data`: [batch or 1, rows, *shape of the layer]."""

    data: Tensor

    def linear(self, op: LinearMap, values: Values) -> Rows:
        """See `Rows`."""
        return DenseRows(op.adjoint(values, self.data))

    def relu(self, lines: ReluLines) -> tuple[Rows, Tensor]:
        """See `Rows`."""
        data, negative = _follow_lines(self.data, lines.lower_slope[:, None], lines.upper_slope[:, None])
        return DenseRows(data), contract(negative, lines.upper_intercept)

    def value(self, x: Tensor) -> Tensor:
        """See `Rows`."""
        return contract(self.data, x)

    def spread(self, radius: Tensor) -> Tensor:
        """See `Rows`."""
        return contract(self.data.abs(), radius)

    def dense(self) -> DenseRows:
        """See `Rows`."""
        return self

    def __add__(self, other: Rows) -> Rows:
        return DenseRows(self.data + other.dense().data)


@dataclass(frozen=True)
class PatchRows(Rows):
    """Forms that stand at the positions of a grid: form (channel k, position p) reads one patch of the layer.

    Attributes:
        data: [batch or 1, positions or 1, channels k, patch elements]; a patch is [C, *kernel], flattened.
        grid: Positions in each dimension; the row order is channel, then position.
        layer: Shape [C, H, W] of the layer that the forms read.
        kernel: Height and width of a patch.
        stride: Pixels of the layer from one position's patch to the next one's.
        padding: Pixels by which the first patch stands out of the layer at the top and left.
        inside: Whether coefficients outside the layer are known to be zero.
    """

    data: Tensor
    grid: tuple[int, int]
    layer: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    inside: bool

    @staticmethod
    def identity(data: Tensor, layer: Shape) -> PatchRows:
        """Forms [rows channels k, C] that read one pixel each, at every position of a layer [C, H, W]."""
        return PatchRows(data[None, None], (layer[1], layer[2]), layer, (1, 1), (1, 1), (0, 0), True)

    def _unfold(self, x: Tensor) -> Tensor:
        """Every position's patch of an image, zero outside: [batch, C, H, W] -> [batch, positions, patch elements]."""
        border, reach = [], [(n - 1) * s + k for n, s, k in zip(self.grid, self.stride, self.kernel, strict=True)]
        for axis in (1, 0):
            border += [self.padding[axis], max(0, reach[axis] - self.padding[axis] - self.layer[1 + axis])]
        windows = (
            F.pad(x, border)[..., : reach[0], : reach[1]]
            .unfold(-2, self.kernel[0], self.stride[0])
            .unfold(-2, self.kernel[1], self.stride[1])
        )
        return windows.permute(0, 2, 3, 1, 4, 5).reshape(x.shape[0], prod(self.grid), -1)

    def _contract(self, data: Tensor, x: Tensor) -> Tensor:
        """Value of each form at an image [batch or 1, C, H, W], with `data` for coefficients: [batch, rows]."""
        patches = self._unfold(x)
        shared = data.shape[:2] == (1, 1)
        result = patches @ data[0, 0].mT if shared else (data * patches[:, :, None]).sum(-1)
        return result.transpose(1, 2).flatten(1)

    def linear(self, op: LinearMap, values: Values) -> Rows:
        """See `Rows`."""
        if isinstance(op, ChannelAffine):
            scale = op.scale(values).repeat_interleave(prod(self.kernel))
            return self._with(self.data * scale)
        if isinstance(op, WindowMap) and not (isinstance(op, AvgPool2d) and not op.uniform):
            return self._through_window(op, values)
        return self.dense().linear(op, values)

    def _through_window(self, op: WindowMap, values: Values) -> PatchRows:
        data = self.data
        if not self.inside:
            data = data * self._unfold(data.new_ones((1, *self.layer)))[:, :, None]
        # A patch is small: one matrix product with the window's matrix on it is faster than many tiny convolutions.
        pixels = (self.layer[0], *self.kernel)
        eye = torch.eye(prod(pixels), dtype=data.dtype, device=data.device).reshape(-1, *pixels)
        matrix = op.transpose_window(values, eye)
        window = op.window
        return PatchRows(
            data @ matrix.flatten(1),
            self.grid,
            op.in_shape,
            (matrix.shape[-2], matrix.shape[-1]),
            (self.stride[0] * window.stride[0], self.stride[1] * window.stride[1]),
            (
                self.padding[0] * window.stride[0] + window.padding[0],
                self.padding[1] * window.stride[1] + window.padding[1],
            ),
            inside=False,
        )

    def relu(self, lines: ReluLines) -> tuple[Rows, Tensor]:
        """See `Rows`."""
        lower, upper = (self._unfold(x)[:, :, None] for x in (lines.lower_slope, lines.upper_slope))
        data, negative = _follow_lines(self.data, lower, upper)
        return self._with(data, inside=True), self._contract(negative, lines.upper_intercept)

    def value(self, x: Tensor) -> Tensor:
        """See `Rows`."""
        return self._contract(self.data, x)

    def spread(self, radius: Tensor) -> Tensor:
        """See `Rows`."""
        return self._contract(self.data.abs(), radius)

    def dense(self) -> DenseRows:
        """See `Rows`."""
        channels, height, width = self.layer
        batch, _, k, _ = self.data.shape
        patches = self.data.expand(batch, prod(self.grid), k, -1)
        patches = patches.reshape(batch, *self.grid, k, channels, *self.kernel)
        device = patches.device
        # Pixel y is element y - i·stride + padding of the patch at position i, where that is an element.
        where = []
        for axis, size in enumerate((height, width)):
            start = torch.arange(self.grid[axis], device=device) * self.stride[axis] - self.padding[axis]
            where.append(torch.arange(size, device=device) - start[:, None])
        inside = [(w >= 0) & (w < kernel) for w, kernel in zip(where, self.kernel, strict=True)]
        u, v = (w.clamp(0, kernel - 1) for w, kernel in zip(where, self.kernel, strict=True))
        i = torch.arange(self.grid[0], device=device)[:, None, None, None]
        j = torch.arange(self.grid[1], device=device)[None, :, None, None]
        # [batch, k, C, grid, grid, kernel, kernel] indexed by (position, pixel) -> [batch, k, C, grid, grid, H, W]
        image = patches.permute(0, 3, 4, 1, 2, 5, 6)[:, :, :, i, j, u[:, None, :, None], v[None, :, None, :]]
        image = image * (inside[0][:, None, :, None] & inside[1][None, :, None, :])
        return DenseRows(image.permute(0, 1, 3, 4, 2, 5, 6).reshape(batch, -1, channels, height, width))

    def __add__(self, other: Rows) -> Rows:
        if not isinstance(other, PatchRows) or other.stride != self.stride:
            return DenseRows(self.dense().data + other.dense().data)
        padding = tuple(max(a, b) for a, b in zip(self.padding, other.padding, strict=True))
        ends = [
            [k + pad - p for k, pad, p in zip(rows.kernel, padding, rows.padding, strict=True)]
            for rows in (self, other)
        ]
        kernel = tuple(max(a, b) for a, b in zip(*ends, strict=True))
        a, b = (rows._grown(kernel, padding) for rows in (self, other))  # type: ignore[arg-type]
        return a._with(a.data + b.data, inside=self.inside and other.inside)

    def _grown(self, kernel: tuple[int, int], padding: tuple[int, int]) -> PatchRows:
        """The same forms on larger patches, filled with zeros."""
        before = [new - old for new, old in zip(padding, self.padding, strict=True)]
        after = [new - old - b for new, old, b in zip(kernel, self.kernel, before, strict=True)]
        patches = self.data.reshape(*self.data.shape[:3], self.layer[0], *self.kernel)
        patches = F.pad(patches, (before[1], after[1], before[0], after[0]))
        return PatchRows(patches.flatten(3), self.grid, self.layer, kernel, self.stride, padding, self.inside)

    def _with(self, data: Tensor, inside: bool | None = None) -> PatchRows:
        inside = self.inside if inside is None else inside
        return PatchRows(data, self.grid, self.layer, self.kernel, self.stride, self.padding, inside)
