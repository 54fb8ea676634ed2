"""Layers of our own that networks are built from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from certtrain.errors import ConfigError


class Normalize(nn.Module):
    """Per-channel (x - mean) / std: the first layer of every network, so that boxes live in pixel space.

    Args:
        mean: One number per channel, in pixel units (0 to 1).
        std: One positive number per channel.

    Raises:
        ConfigError: If the lengths differ or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = [float(m) for m in mean], [float(s) for s in std]
        if len(mean) != len(std) or not mean:
            raise ConfigError(f"Normalize: {len(mean)} means but {len(std)} stds; one of each per channel")
        if min(std) <= 0:
            raise ConfigError(f"Normalize: every std must be positive, got {std}")
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, ...] -> the same shape."""
        ones = [1] * (x.dim() - 2)
        return (x - self.mean.reshape(-1, *ones)) / self.std.reshape(-1, *ones)
