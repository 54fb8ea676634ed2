"""Rows that stand at the positions of an image and hold only their receptive field.

For the second convolution of a small network that is a tenth of the image (auto_LiRPA's patches mode rests on the same
observation). A patch grows from layer to layer until it covers the image; from there on rows are dense.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from certtrain.activations import Lines
from certtrain.bounds.rows.dense import DenseRows, Operators, Rows, for_each_input, pick_forms
from certtrain.bounds.rows.products import contract, follow_lines
from certtrain.bounds.rows.reach import Reach, Where
from certtrain.networks.kernels import matmul
from certtrain.networks.ops import ChannelAffine, LinearMap, Values, WindowMap

# A window on a patch is a small, mostly empty matrix. The product with it takes more multiplications than a convolution
# but runs at the full speed of matrix products; these are the largest ratios, by the convolution's input channels, at
# which that paid (docs/performance.md).
LARGEST_OVERHEAD = {"thin": 24.0, "thick": 6.0}
THIN_CHANNELS = 8
LARGEST_MATRIX = 1 << 22


def back(reach: Reach | None, op: LinearMap) -> Reach | None:
    """The patches of an operation's input that patches of its output depend on; None for whole layers."""
    if reach is None or reach.covers_layer:
        return None
    if isinstance(op, ChannelAffine):
        return reach
    return reach.through(op) if isinstance(op, WindowMap) and op.uniform else None


def wants_matrix(reach: Reach, op: WindowMap) -> bool:
    """Whether an operation's window is applied to patches of its output as a matrix."""
    if not op.uniform or reach.covers_layer:
        return False
    after = reach.through(op)
    overhead = prod(after.kernel) / prod(op.window.kernel)
    kind = "thin" if op.in_shape[0] < THIN_CHANNELS else "thick"
    return reach.size * after.size <= LARGEST_MATRIX and overhead <= LARGEST_OVERHEAD[kind]


def window_matrix(reach: Reach, op: WindowMap, values: Values, like: Tensor) -> Tensor:
    """The adjoint of a window on one patch: [elements of a patch of its output, elements of one of its input]."""
    eye = torch.eye(reach.size, dtype=like.dtype, device=like.device)
    patches = eye.reshape(-1, *reach.kernel, reach.layer[0]).permute(0, 3, 1, 2)
    return op.transpose_window(values, patches).permute(0, 2, 3, 1).flatten(1)


@dataclass(frozen=True)
class PatchRows(Rows):
    """See the module.

    Attributes:
        data: [groups or 1, k, elements of a patch]; a patch is [*kernel, C].
        patch: The patches.
        inside: Whether coefficients outside the layer are known to be zero.
        where: The groups; None as long as one group serves all images and positions.
    """

    data: Tensor
    patch: Reach
    inside: bool
    where: Where | None = None

    @property
    def reach(self) -> Reach | None:
        """See `Rows`."""
        return self.patch

    def with_data(self, data: Tensor) -> PatchRows:
        """See `Rows`."""
        return replace(self, data=data)

    @property
    def flat(self) -> Tensor:
        """See `Rows`."""
        return self.data

    @property
    def groups(self) -> tuple[Tensor, Tensor]:
        """See `Rows`."""
        assert self.where is not None
        return self.where.groups(self.patch.positions)

    @property
    def serves_all(self) -> bool:
        """See `Rows`. Outside the layer positions differ."""
        return self.where is None and self.inside

    @property
    def _pixels(self) -> int:
        return prod(self.patch.kernel)

    def _pick(self, x: Tensor) -> Tensor:
        """Each group's patch of [batch or 1, H, W, C]: [groups, elements]."""
        assert self.where is not None
        return self.patch.patches(x, self.where).flatten(1)

    def select(self, where: Where, forms: slice | Tensor) -> Rows:
        """See `Rows`."""
        return replace(self, data=pick_forms(self.data, forms), where=where)

    def linear(self, op: LinearMap, operators: Operators) -> Rows:
        """See `Rows`."""
        after = back(self.patch, op)
        if after is None:
            return self.dense().linear(op, operators)
        if isinstance(op, ChannelAffine):
            return replace(self, data=self.data * op.scale(operators.values).repeat(self._pixels))
        assert isinstance(op, WindowMap)
        data = self.data if self.inside else self._cut()
        matrix = operators.matrices.get((op, self.patch.kernel))
        if matrix is not None:
            data = matmul(data, matrix)
        else:
            images = data.reshape(-1, *self.patch.kernel, self.patch.layer[0]).permute(0, 3, 1, 2)
            images = op.transpose_window(operators.values, images).permute(0, 2, 3, 1)
            data = images.reshape(*data.shape[:2], -1)
        return PatchRows(data, after, False, self.where)

    def _cut(self) -> Tensor:
        """Coefficients, zero outside the layer."""
        ones = torch.ones((1, *self.patch.layer[1:], 1), dtype=self.data.dtype, device=self.data.device)
        mask = self._pick(ones).repeat_interleave(self.patch.layer[0], dim=-1)
        return self.data * mask[:, None]

    def activation(self, lines: Lines, group: int) -> tuple[Rows, Tensor]:
        """See `Rows`."""
        before = replace(self, patch=self.patch.of_inputs(group))
        data, constant = follow_lines(for_each_input(self.data, group), lines.map(before._pick))
        return replace(before, data=data, inside=True), constant

    def plus(self, x: Tensor) -> PatchRows:
        """See `Rows`."""
        return replace(self, data=(self.data if self.inside else self._cut()) + self._pick(x)[:, None], inside=True)

    def offset(self, b: Tensor) -> Tensor:
        """See `Rows`."""
        data = self.data if self.inside else self._cut()
        if b.dim() == 3 and b.shape[1:] != (1, 1):
            return contract(data, self._pick(b.expand(self.patch.layer).movedim(0, -1)[None]))
        return contract(data, b.flatten().repeat(self._pixels)[None])

    def value(self, x: Tensor) -> Tensor:
        """See `Rows`."""
        return contract(self.data, self._pick(x))

    def spread(self, radius: Tensor) -> Tensor:
        """See `Rows`."""
        return contract(self.data.abs(), self._pick(radius))

    def dense(self) -> DenseRows:
        """See `Rows`."""
        assert self.where is not None
        patches = self.data.reshape(*self.data.shape[:2], *self.patch.kernel, self.patch.layer[0])
        layers = self.patch.spell_out(patches, self.where)
        if self.where.positions is None:
            # The positions of an image are one group from here on: they share its slopes.
            layers = layers.reshape(-1, self.patch.positions * layers.shape[1], *layers.shape[2:])
        return DenseRows(layers, Where(self.where.images))

    def __add__(self, other: Rows) -> Rows:
        both = self.patch.union(other.patch) if isinstance(other, PatchRows) else None
        if both is None:
            return self.dense() + other
        assert isinstance(other, PatchRows)
        data = self._grown(both) + other._grown(both)
        return PatchRows(data, both, self.inside and other.inside, self.where)

    def _grown(self, patch: Reach) -> Tensor:
        """The same forms on larger patches, filled with zeros."""
        border = []
        for axis in (1, 0):
            before = patch.padding[axis] - self.patch.padding[axis]
            border += [before, patch.kernel[axis] - self.patch.kernel[axis] - before]
        data = self.data.reshape(*self.data.shape[:2], *self.patch.kernel, self.patch.layer[0])
        return F.pad(data, (0, 0, *border)).flatten(2)
