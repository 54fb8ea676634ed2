"""The vocabulary of the compiled code: layers, and the steps between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import prod

from torch import Tensor

from certtrain.bounds.anchor import Anchor
from certtrain.bounds.slopes import ReluLines
from certtrain.networks.ops import Shape, Values


class Kind(IntEnum):
    """Kept in step with task.h."""

    RELU = 0
    VALUE = 1
    OFFSET = 2
    SCALE = 3
    CONVOLUTION = 4
    THIN_CONVOLUTION = 5
    LINEAR = 6
    SPREAD = 7


# Steps that read weights.
CONVOLUTIONS = (Kind.CONVOLUTION, Kind.THIN_CONVOLUTION)
PRODUCTS = (*CONVOLUTIONS, Kind.LINEAR)


@dataclass(frozen=True)
class Layer:
    """A layer as rows are held in it: [height, width, channels], channels padded; a vector has one pixel."""

    height: int
    width: int
    channels: int

    @staticmethod
    def of(shape: Shape, lanes: int) -> Layer:
        """Padded to whole vectors of `lanes` numbers."""
        height, width = shape[1:] if len(shape) == 3 else (1, 1)
        return Layer(height, width, -(-(shape[0] if len(shape) == 3 else prod(shape)) // lanes) * lanes)


@dataclass(frozen=True)
class Operands:
    """Everything that the bounds of a chain depend on, beside the rows."""

    values: Values
    lines: Mapping[int, ReluLines]
    anchor: Anchor


@dataclass(frozen=True)
class Operand:
    """One tensor of a step: made from everything that bounds depend on.

    Attributes:
        make: See `operands`.
        per_image: Whether its first axis is the batch.
    """

    make: Callable[[Operands], Tensor]
    per_image: bool


@dataclass(frozen=True)
class Step:
    """One step; `layer` and `halo` (pixels of zeros beside every line) describe rows after it."""

    kind: Kind
    operands: tuple[Operand, ...]
    layer: Layer
    window: tuple[int, ...] = (1, 1, 1, 1, 0, 0)
    halo: int = 0
