"""Maps that move elements, or take some of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from math import prod

from torch import Tensor

from certtrain.networks.ops.base import LinearMap, Shape, Values


@dataclass(frozen=True)
class Reshape(LinearMap):
    """Any reshape that keeps the batch axis: flatten, view, reshape."""

    @property
    def keeps_boxes(self) -> bool:
        return True

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[: x.dim() - len(self.in_shape)], *self.shape)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self.forward_linear(values, x)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        return rows.reshape(*rows.shape[: rows.dim() - len(self.shape)], *self.in_shape)


@dataclass(frozen=True)
class Gather(LinearMap):
    """Elements in another order, some of them, some repeated, or zeros: slices, transpositions, parts of sums.

    Attributes:
        digest: Tells the index from others, since tensors do not compare as a whole.
        index: For each element of the output, the element of the input that it reads, both flattened; -1 for zero.
    """

    digest: str
    index: Tensor = field(repr=False, compare=False)

    @staticmethod
    def of(name: str, inputs: tuple[int, ...], shape: Shape, in_shape: Shape, index: Tensor) -> Gather:
        """From the index, int64 on the CPU."""
        digest = sha256(index.contiguous().numpy().tobytes()).hexdigest()[:16]
        return Gather(name, inputs, shape, in_shape, digest, index.flatten())

    @property
    def keeps_boxes(self) -> bool:
        read = self.index[self.index >= 0]
        return len(read.unique()) == len(read)

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - len(self.in_shape)]
        index = self.index.to(x.device)
        taken = x.reshape(*lead, -1).index_select(-1, index.clamp(min=0)) * (index >= 0).to(x.dtype)
        return taken.reshape(*lead, *self.shape)

    def forward_abs(self, values: Values, x: Tensor) -> Tensor:
        return self.forward_linear(values, x)

    def adjoint(self, values: Values, rows: Tensor) -> Tensor:
        lead = rows.shape[: rows.dim() - len(self.shape)]
        index = self.index.to(rows.device)
        flat = rows.reshape(*lead, -1) * (index >= 0).to(rows.dtype)
        found = flat.new_zeros((*lead, prod(self.in_shape))).index_add(-1, index.clamp(min=0), flat)
        return found.reshape(*lead, *self.in_shape)
