"""Low-rank weight noise: every matrix moves by a product of two thin ones (EGGROLL, arXiv 2511.16652)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.gradients.noise import Noise
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class LowRankNoise(Noise):
    """ε = σ A Bᵀ / √r with standard normal A [rows, r], B [columns, r]: variance σ² in every entry, rank r at most.

    A kernel is a matrix with one row per output channel. Vectors, and matrices that two factors would not make smaller,
    get plain Gaussian noise. A matrix of m x n needs r (m + n) random numbers instead of m n. Entries are uncorrelated,
    but neither independent nor normal: antithetic differences are unbiased for quadratic losses only. Of third order,
    w12 · w21 · w22 at zero gives σ² in entry (1, 1) with rank 1, where a Gaussian gives nothing. What they smooth with
    comes closer to a Gaussian as r grows.

    Attributes:
        rank: r, at least 1.

    Raises:
        ConfigError: If the rank is no positive whole number.
    """

    rank: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int):
            raise ConfigError(f"pgpe.noise.rank must be a whole number, got {self.rank!r}")
        if self.rank < 1:
            raise ConfigError(f"pgpe.noise.rank must be at least 1, got {self.rank}")

    @property
    def gaussian(self) -> bool:
        """Products of normal numbers are not normal."""
        return False

    def sample(self, params: Params, generation: int, pairs: range) -> Params:
        """See `Noise.sample`."""
        sizes = [self._numbers(p) for p in params.values()]
        parts = self.normal(sum(sizes), params, generation, pairs).split(sizes, dim=1)
        return {
            name: self._shaped(part, p).mul_(self.sigma).to(dtype=p.dtype, device=p.device)
            for (name, p), part in zip(params.items(), parts, strict=True)
        }

    def _numbers(self, parameter: Tensor) -> int:
        """Random numbers behind the noise of one parameter."""
        if parameter.dim() < 2:
            return parameter.numel()
        rows = len(parameter)
        return min(self.rank * (rows + parameter.numel() // max(rows, 1)), parameter.numel())

    def _shaped(self, numbers: Tensor, parameter: Tensor) -> Tensor:
        """Unit noise [pairs, *parameter shape] from its random numbers [pairs, ...]."""
        pairs = len(numbers)
        if numbers.shape[1] == parameter.numel():
            return numbers.reshape(pairs, *parameter.shape)
        rows = len(parameter)
        left = numbers[:, : self.rank * rows].reshape(pairs, rows, self.rank)
        right = numbers[:, self.rank * rows :].reshape(pairs, self.rank, parameter.numel() // rows)
        return (left @ right).div_(math.sqrt(self.rank)).reshape(pairs, *parameter.shape)
