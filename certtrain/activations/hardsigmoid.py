"""Hardsigmoid: a sigmoid of three straight pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.activations.base import ULPS
from certtrain.activations.interval import Interval
from certtrain.activations.piecewise import PiecewiseLinear


@dataclass(frozen=True)
class Hardsigmoid(PiecewiseLinear):
    """(z + 3) / 6, clipped to [0, 1]."""

    modules: ClassVar = {nn.Hardsigmoid: lambda module: Hardsigmoid()}
    functions: ClassVar = {F.hardsigmoid: lambda inplace=False: Hardsigmoid()}

    @property
    def knots(self) -> tuple[float, ...]:
        """See `PiecewiseLinear`."""
        return (-3.0, 3.0)

    @property
    def piece_slopes(self) -> tuple[float, ...]:
        """See `PiecewiseLinear`."""
        return (0.0, 1 / 6, 0.0)

    def evaluation_error(self, z: Interval, unit: float) -> Tensor:
        """See `Activation`: near its lower knot, terms of one half may cancel."""
        return torch.full_like(z.lower, 2 * ULPS * unit)

    def __call__(self, z: Tensor) -> Tensor:
        """See `Activation`."""
        return ((z + 3) / 6).clamp(0, 1)
