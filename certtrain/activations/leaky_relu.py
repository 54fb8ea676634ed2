"""LeakyReLU: z where it is positive, a fraction of it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.activations.interval import Interval
from certtrain.activations.piecewise import PiecewiseLinear

# Normal number of float32.
SMALLEST = torch.finfo(torch.float32).tiny


def _leaky_relu(negative_slope: float = 0.01, inplace: bool = False) -> LeakyReLU:
    return LeakyReLU(float(negative_slope))


@dataclass(frozen=True)
class LeakyReLU(PiecewiseLinear):
    """max(z, 0) + negative_slope · min(z, 0).

    Attributes:
        negative_slope: Any number; above one the function is concave, below zero it decreases first.
    """

    negative_slope: float

    modules: ClassVar = {nn.LeakyReLU: lambda module: LeakyReLU(float(module.negative_slope))}
    functions: ClassVar = dict.fromkeys((F.leaky_relu, F.leaky_relu_), _leaky_relu)

    @property
    def knots(self) -> tuple[float, ...]:
        """See `PiecewiseLinear`."""
        return (0.0,)

    @property
    def piece_slopes(self) -> tuple[float, ...]:
        """See `PiecewiseLinear`."""
        return (self.negative_slope, 1.0)

    def evaluation_error(self, z: Interval, unit: float) -> Tensor:
        """See `Activation`: a slope or an input that underflows may count as zero."""
        largest = torch.maximum(z.lower.abs(), z.upper.abs())
        return super().evaluation_error(z, unit) + SMALLEST * (largest + abs(self.negative_slope))

    def __call__(self, z: Tensor) -> Tensor:
        """See `Activation`."""
        return torch.where(z > 0, z, self.negative_slope * z)
