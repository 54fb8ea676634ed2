"""The hyperbolic tangent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.activations.s_shaped import SShaped


@dataclass(frozen=True)
class Tanh(SShaped):
    """tanh(z)."""

    modules: ClassVar = {nn.Tanh: lambda module: Tanh()}
    functions: ClassVar = dict.fromkeys((torch.tanh, F.tanh, "tanh"), lambda: Tanh())

    def __call__(self, z: Tensor) -> Tensor:
        """See `Activation`."""
        return torch.tanh(z)

    def derivative(self, z: Tensor) -> Tensor:
        """See `Unary`; 1 - tanh² would cancel for large z."""
        return 4 * torch.sigmoid(2 * z) * torch.sigmoid(-2 * z)

    @property
    def steepest(self) -> float:
        """See `SShaped`."""
        return 1.0

    def second_derivative(self, z: Tensor) -> Tensor:
        """See `SShaped`."""
        return -2 * torch.tanh(z) * self.derivative(z)

    def touching(self, slope: Tensor) -> Tensor:
        """See `SShaped`: tanh² = 1 - slope."""
        slope = slope.clamp(max=1)
        root = (1 - slope).sqrt()
        # atanh(root), written so that it does not cancel where the slope is small.
        return torch.where(slope > 0, torch.log((1 + root) / slope.sqrt()), torch.inf)
