"""The logistic function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.activations.s_shaped import SShaped


@dataclass(frozen=True)
class Sigmoid(SShaped):
    """1 / (1 + exp(-z))."""

    modules: ClassVar = {nn.Sigmoid: lambda module: Sigmoid()}
    functions: ClassVar = dict.fromkeys((torch.sigmoid, F.sigmoid, "sigmoid"), lambda: Sigmoid())

    def __call__(self, z: Tensor) -> Tensor:
        """See `Activation`."""
        return torch.sigmoid(z)

    def derivative(self, z: Tensor) -> Tensor:
        """See `Unary`."""
        return torch.sigmoid(z) * torch.sigmoid(-z)

    @property
    def steepest(self) -> float:
        """See `SShaped`."""
        return 0.25

    def second_derivative(self, z: Tensor) -> Tensor:
        """See `SShaped`."""
        return self.derivative(z) * (1 - 2 * torch.sigmoid(z))

    def touching(self, slope: Tensor) -> Tensor:
        """See `SShaped`: σ(1 - σ) = slope is a quadratic equation in σ; its smaller root is the one at -z."""
        slope = slope.clamp(max=0.25)
        root = (1 - 4 * slope).sqrt()
        # (1 - root) / 2 would cancel where the slope is small.
        small = 2 * slope / (1 + root)
        return torch.where(slope > 0, torch.log((1 - small) / small), torch.inf)
