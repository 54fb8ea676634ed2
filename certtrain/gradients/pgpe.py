"""PGPE: the gradient of a Gaussian-smoothed loss from loss values alone (Sehnke et al., Neural Networks 2010).

L_σ(θ) = E L(θ + ε) with ε ~ N(0, σ² I) is smooth wherever L is merely bounded on compact sets, and

    ∇L_σ(θ) ≈ 1/n Σ_i ε_i (L(θ + ε_i) - L(θ - ε_i)) / (2 σ²)      over n antithetic pairs

is unbiased (Gaussian Loss Smoothing, arXiv 2403.07095). Raw differences: no ranks, no baseline, always minimised.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certtrain.errors import CerttrainError, ConfigError
from certtrain.gradients.base import Choice, Estimate, GradientEstimator, LossFunction
from certtrain.gradients.noise import GaussianNoise
from certtrain.gradients.population import STRATEGIES, evaluate
from certtrain.gradients.strategy import fastest
from certtrain.networks.graph import Params

# Noise numbers held at once. Pairs are drawn and summed in blocks of a size that depends on nothing but the network, so
# that neither the chunk nor the strategy of the evaluation changes the order of a sum.
NOISE_NUMBERS = 1 << 26
MAX_BLOCK = 64


class EstimationError(CerttrainError):
    """No usable gradient could be estimated."""


@dataclass(frozen=True)
class PGPE(GradientEstimator):
    """Antithetic finite differences of a population.

    Attributes:
        sigma: Standard deviation of the weight noise.
        population_size: Members P, an even number: P/2 antithetic pairs.
        seed: Seed of the noise.
        strategy: How members are evaluated, see `evaluate`. "auto" is open: `choose` measures and `decided` settles it;
            an estimate before that measures by itself, every time.
        member_chunk: Members per vectorised call.
        max_dropped: Largest fraction of pairs, 0 to 1, that may be dropped because a loss is not finite.

    Raises:
        ConfigError: If sigma is not positive, the population odd, the strategy unknown, the chunk empty or the fraction
            none.
    """

    sigma: float
    population_size: int
    seed: int = 0
    strategy: str = "vmap"
    member_chunk: int = 16
    max_dropped: float = 0.5

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ConfigError(f"pgpe.sigma must be positive, got {self.sigma}")
        if self.population_size < 2 or self.population_size % 2:
            raise ConfigError(
                f"pgpe.population_size must be even and at least 2 (antithetic pairs), got {self.population_size}"
            )
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"pgpe.strategy must be one of {', '.join(STRATEGIES)}, got {self.strategy}")
        if self.member_chunk < 1:
            raise ConfigError(f"pgpe.member_chunk must be at least 1, got {self.member_chunk}")
        if not 0 <= self.max_dropped <= 1:
            raise ConfigError(f"pgpe.max_dropped is a fraction of the pairs, 0 to 1, got {self.max_dropped}")

    @property
    def evaluations(self) -> int:
        """The whole population."""
        return self.population_size

    def choose(self, loss: LossFunction, params: Params) -> Choice | None:
        """See `GradientEstimator.choose`; members are those of an estimate's first vectorised call."""
        if self.strategy != "auto":
            return None
        params = {name: p.detach() for name, p in params.items()}
        pairs = min(self._pairs_at_once(params), (self.member_chunk + 1) // 2)
        epsilon = GaussianNoise(self.seed, self.sigma).sample(params, 0, range(pairs))
        return fastest(loss, params, _antithetic(epsilon), self.member_chunk)

    def decided(self, strategy: str) -> PGPE:
        """See `GradientEstimator.decided`."""
        return replace(self, strategy=strategy) if self.strategy == "auto" else self

    def estimate(self, loss: LossFunction, params: Params, generation: int) -> Estimate:
        """See `GradientEstimator.estimate`. A pair with a loss that is not finite is dropped and counted."""
        params = {name: p.detach() for name, p in params.items()}
        noise = GaussianNoise(self.seed, self.sigma)
        pairs = self.population_size // 2
        block = self._pairs_at_once(params)
        gradient = {name: torch.zeros_like(p) for name, p in params.items()}
        losses: list[Tensor] = []
        for start in range(0, pairs, block):
            epsilon = noise.sample(params, generation, range(start, min(start + block, pairs)))
            values = self._evaluate_pairs(loss, params, epsilon)
            losses.append(values)
            weights = _weights(values, self.sigma)
            for name, e in epsilon.items():
                gradient[name] += torch.tensordot(weights.to(e.dtype), e, dims=1)
        return self._finish(gradient, torch.cat(losses, dim=1))

    def _pairs_at_once(self, params: Params) -> int:
        size = sum(p.numel() for p in params.values())
        return min(self.population_size // 2, max(1, min(MAX_BLOCK, NOISE_NUMBERS // size)))

    def _evaluate_pairs(self, loss: LossFunction, params: Params, epsilon: Params) -> Tensor:
        """Losses [2, pairs]: row 0 at θ + ε, row 1 at θ - ε."""
        values = evaluate(loss, params, _antithetic(epsilon), strategy=self.strategy, chunk=self.member_chunk)
        return values.reshape(2, -1)

    def _finish(self, gradient: Params, losses: Tensor) -> Estimate:
        finite = losses.isfinite().all(0)
        kept = int(finite.sum())
        pairs = losses.shape[1]
        if kept == 0:
            raise EstimationError(
                f"none of the {pairs} antithetic pairs has a finite loss: lower optimizer.lr or pgpe.sigma"
            )
        if pairs - kept > self.max_dropped * pairs:
            raise EstimationError(
                f"{pairs - kept} of the {pairs} antithetic pairs have no finite loss, more than pgpe.max_dropped="
                f"{self.max_dropped:g} allows: lower optimizer.lr or pgpe.sigma"
            )
        values = losses[:, finite]
        gradient = {name: g / kept for name, g in gradient.items()}
        statistics = {
            "sigma": self.sigma,
            "population/std": float(values.std()) if values.numel() > 1 else 0.0,
            "population/dropped_pairs": float(losses.shape[1] - kept),
        }
        return Estimate(gradient, values.mean(), statistics)


def _antithetic(epsilon: Params) -> Params:
    """Noise of the members: all pairs' first halves, then their twins."""
    return {name: torch.cat([e, -e]) for name, e in epsilon.items()}


def _weights(losses: Tensor, sigma: float) -> Tensor:
    """(L⁺ - L⁻) / (2 σ²) per pair, zero where either is not finite."""
    difference = (losses[0] - losses[1]) / (2 * sigma**2)
    return torch.where(losses.isfinite().all(0), difference, torch.zeros_like(difference))
