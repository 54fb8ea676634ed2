"""The vocabulary of the compiled code: layers, and the steps between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from certtrain.bounds.rows.anchor import Anchor
from certtrain.bounds.rows.passage import Linearization
from certtrain.networks.ops import Shape, Values


class Kind(IntEnum):
    """Kept in step with task.h."""

    LINES = 0
    VALUE = 1
    OFFSET = 2
    SCALE = 3
    CONVOLUTION = 4
    THIN_CONVOLUTION = 5
    LINEAR = 6
    SPREAD = 7
    POSITIVE = 8
    SHIFT = 9


# Steps that read weights.
CONVOLUTIONS = (Kind.CONVOLUTION, Kind.THIN_CONVOLUTION)
PRODUCTS = (*CONVOLUTIONS, Kind.LINEAR)
# Steps that add a sum of products with one tensor, whose derivatives may not be needed.
POINTS = (Kind.VALUE, Kind.SPREAD, Kind.POSITIVE)


def whole(numbers: int, lanes: int) -> int:
    """So many numbers, up to whole vectors."""
    return -(-numbers // lanes) * lanes


@dataclass(frozen=True)
class Layer:
    """A layer as rows are held: [height, width, channels], channels padded but for bundles; a vector is one pixel.

    `shape` is that of the layer's tensors: [height, width, channels] without padding, or [n].
    """

    height: int
    width: int
    channels: int
    shape: Shape

    @staticmethod
    def of(shape: Shape, lanes: int) -> Layer:
        """Padded to whole vectors of `lanes` numbers."""
        own = (*shape[1:], shape[0]) if len(shape) == 3 else (prod(shape),)
        height, width = own[:-1] or (1, 1)
        return Layer(height, width, whole(own[-1], lanes), own)


@dataclass(frozen=True)
class Operands:
    """Everything that the bounds of a chain depend on, beside the rows."""

    values: Values
    linearization: Linearization
    anchor: Anchor


@dataclass(frozen=True)
class Operand:
    """One tensor of a step: made from everything that bounds depend on.

    Attributes:
        make: See `operands`.
        per_image: Whether its first axis is the batch.
        shape: As `make` gives it, without the batch.
        sizes: Of its last axes where the compiled code reads it, at least as large as they are.
        behind: Numbers that may be read behind each image.
    """

    make: Callable[[Operands], Tensor]
    per_image: bool
    shape: Shape
    sizes: tuple[int, ...]
    behind: int = 0

    def laid_out(self, x: Tensor) -> Tensor:
        """With zeros up to the sizes, contiguous; axes before those that `make` gives it are kept."""
        x = pad(x, *self.sizes)
        if self.behind:
            x = F.pad(x.flatten(-len(self.sizes)), (0, self.behind))
        return x.contiguous()

    def trimmed(self, x: Tensor, shape: torch.Size) -> Tensor:
        """Undoes `laid_out` for a tensor that was made in this shape."""
        if self.behind:
            x = x[..., : -self.behind].unflatten(-1, self.sizes)
        return x[tuple(slice(n) for n in shape)]


def pad(x: Tensor, *sizes: int) -> Tensor:
    """Zeros behind the last axes.

    Raises:
        ValueError: If an axis is longer than its size.
    """
    missing = [size - n for n, size in zip(x.shape[-len(sizes) :], sizes, strict=True)]
    if min(missing) < 0:
        raise ValueError(f"compiled bounds: at most {list(sizes)} numbers have a place, got {list(x.shape)}")
    return F.pad(x, [n for count in reversed(missing) for n in (0, count)]) if any(missing) else x


@dataclass(frozen=True)
class Step:
    """One step; `layer` and `halo` (pixels of zeros beside every line) describe rows after it."""

    kind: Kind
    operands: tuple[Operand, ...]
    layer: Layer
    window: tuple[int, ...] = (1, 1, 1, 1, 0, 0)
    halo: int = 0
