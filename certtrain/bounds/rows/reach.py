"""Receptive fields: which patch of a layer the forms at the positions of a grid read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from certtrain.networks.kernels import pad_or_cut
from certtrain.networks.ops import Shape, WindowMap


@dataclass(frozen=True)
class Where:
    """Whose forms a chunk of rows holds.

    Attributes:
        images: A range of the batch, or one image per group of rows, [groups].
        positions: One position of the grid per group, [groups], in the only image of a range or in the group's own;
            None where the rows are dense, or where every position of a range of images is a group.
    """

    images: slice | Tensor
    positions: Tensor | None = None

    def pick(self, x: Tensor) -> Tensor:
        """Each group's image of [batch or 1, *shape]; the batch axis stays 1 where it is."""
        return x if x.shape[0] == 1 else x[self.images]

    def groups(self, positions: int) -> tuple[Tensor, Tensor]:
        """Image and position of every group, where a range of images has `positions` of them each."""
        if isinstance(self.images, Tensor):
            return self.images, torch.zeros_like(self.images) if self.positions is None else self.positions
        images = torch.arange(self.images.start, self.images.stop)
        if self.positions is not None:
            return images.expand(len(self.positions)), self.positions
        return images.repeat_interleave(positions), torch.arange(positions).repeat(len(images))


@dataclass(frozen=True)
class Reach:
    """Patches of a layer, one per position of a grid.

    Attributes:
        grid: Positions in each dimension.
        layer: Shape [C, H, W] of the layer.
        kernel: Height and width of a patch.
        stride: Pixels of the layer from one position's patch to the next one's.
        padding: Pixels by which the first patch stands out of the layer at the top and left.
    """

    grid: tuple[int, int]
    layer: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @staticmethod
    def pixels(layer: Shape) -> Reach:
        """Every position of a layer reads its own pixel."""
        return Reach((layer[1], layer[2]), layer, (1, 1), (1, 1), (0, 0))

    @property
    def positions(self) -> int:
        """Number of positions."""
        return prod(self.grid)

    @property
    def size(self) -> int:
        """Elements of a patch."""
        return self.layer[0] * prod(self.kernel)

    @property
    def covers_layer(self) -> bool:
        """Whether a patch has no fewer pixels than the layer, so that dense rows are the smaller ones."""
        return prod(self.kernel) >= prod(self.layer[1:])

    def through(self, op: WindowMap) -> Reach:
        """The patches of the operation's input that these patches of its output depend on."""
        w = op.window
        return Reach(
            self.grid,
            op.in_shape,
            tuple((k - 1) * s + e for k, s, e in zip(self.kernel, w.stride, w.extent, strict=True)),  # type: ignore[arg-type]
            (self.stride[0] * w.stride[0], self.stride[1] * w.stride[1]),
            (self.padding[0] * w.stride[0] + w.padding[0], self.padding[1] * w.stride[1] + w.padding[1]),
        )

    def of_inputs(self, group: int) -> Reach:
        """The same pixels of an activation's input, where `group` channels make one of its output."""
        return replace(self, layer=(self.layer[0] * group, *self.layer[1:]))

    def union(self, other: Reach) -> Reach | None:
        """The smallest patches that contain both; None where the strides differ."""
        if other.stride != self.stride:
            return None
        top, left = (max(a, b) for a, b in zip(self.padding, other.padding, strict=True))
        # How far each reaches beyond the pixel at which it would start without padding.
        height, width = (
            max(k - p, m - q) for k, p, m, q in zip(self.kernel, self.padding, other.kernel, other.padding, strict=True)
        )
        return replace(self, kernel=(top + height, left + width), padding=(top, left))

    def borders(self) -> list[tuple[int, int]]:
        """Pixels that all patches together stand out of the layer before and after it, per dimension."""
        spans = [(n - 1) * s + k for n, s, k in zip(self.grid, self.stride, self.kernel, strict=True)]
        return [(p, spans[i] - p - self.layer[1 + i]) for i, p in enumerate(self.padding)]

    def patches(self, x: Tensor, where: Where) -> Tensor:
        """Each group's patch of an image, zero outside: [batch or 1, H, W, C] -> [groups, *kernel, C]."""
        if isinstance(where.images, slice):
            x = where.pick(x)
        (top, bottom), (left, right) = self.borders()
        windows = (
            pad_or_cut(x, (0, 0, left, right, top, bottom))
            .unfold(1, self.kernel[0], self.stride[0])
            .unfold(2, self.kernel[1], self.stride[1])
            .permute(0, 1, 2, 4, 5, 3)
        )
        if where.positions is None:
            assert isinstance(where.images, slice)
            windows = windows.expand(where.images.stop - where.images.start, *windows.shape[1:])
            return windows.reshape(-1, *self.kernel, x.shape[-1])
        i, j = where.positions // self.grid[1], where.positions % self.grid[1]
        return windows[where.images, i, j] if isinstance(where.images, Tensor) and len(x) > 1 else windows[0, i, j]

    def spell_out(self, patches: Tensor, where: Where) -> Tensor:
        """Patches [groups, k, *kernel, C] as whole layers [groups, k, H, W, C], zero outside the patch."""
        places, valid = [], []
        positions = where.positions
        if positions is None:
            assert isinstance(where.images, slice)
            images = where.images.stop - where.images.start
            positions = torch.arange(self.positions, device=patches.device).repeat(images)
        for axis, at in enumerate((positions // self.grid[1], positions % self.grid[1])):
            start = at * self.stride[axis] - self.padding[axis]
            place = torch.arange(self.layer[1 + axis], device=patches.device) - start[:, None]
            valid.append((place >= 0) & (place < self.kernel[axis]))
            places.append(place.clamp(0, self.kernel[axis] - 1))
        patches = patches.expand(len(positions), *patches.shape[1:])
        group = torch.arange(len(positions), device=patches.device)[:, None, None]
        # Indices apart from each other put the indexed axes first: [groups, H, W, k, C].
        layer = patches[group, :, places[0][:, :, None], places[1][:, None, :]]
        layer = layer * (valid[0][:, :, None] & valid[1][:, None, :])[..., None, None]
        return layer.permute(0, 3, 1, 2, 4)
