"""Clipping to a range: ReLU6, Hardtanh, clamp."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.activations.piecewise import PiecewiseLinear


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Clip:
    return Clip(float(min_val), float(max_val))


def _relu6(inplace: bool = False) -> Clip:
    return Clip(0.0, 6.0)


def _clamp(min: float | None = None, max: float | None = None) -> Clip:
    return Clip(-torch.inf if min is None else float(min), torch.inf if max is None else float(max))


@dataclass(frozen=True)
class Clip(PiecewiseLinear):
    """The nearest number in a range.

    Attributes:
        smallest: Lower end of the range; minus infinity where there is none.
        largest: Upper end.

    Raises:
        ValueError: If the range is empty.
    """

    smallest: float
    largest: float

    modules: ClassVar = {
        nn.ReLU6: lambda module: _relu6(),
        nn.Hardtanh: lambda module: _hardtanh(module.min_val, module.max_val),
    }
    functions: ClassVar = {
        **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
        F.relu6: _relu6,
        **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip"), _clamp),
    }

    def __post_init__(self) -> None:
        if not self.smallest < self.largest or not any(map(isfinite, (self.smallest, self.largest))):
            raise ValueError(f"a range to clip to needs ends in order, got {self.smallest} and {self.largest}")

    @property
    def knots(self) -> tuple[float, ...]:
        """See `PiecewiseLinear`."""
        return tuple(end for end in (self.smallest, self.largest) if isfinite(end))

    @property
    def piece_slopes(self) -> tuple[float, ...]:
        """See `PiecewiseLinear`."""
        before, after = isfinite(self.smallest), isfinite(self.largest)
        return (*([0.0] * before), 1.0, *([0.0] * after))

    def __call__(self, z: Tensor) -> Tensor:
        """See `Activation`."""
        return z.clamp(self.smallest, self.largest)
