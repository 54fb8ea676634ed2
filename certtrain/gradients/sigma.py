"""How sigma changes over the generations: not at all, by a schedule, or learned from the losses."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from certtrain.errors import ConfigError
from certtrain.gradients.base import State


class SigmaRule(ABC):
    """Sigma of every generation, beginning with the configured one."""

    learns: bool = False

    def planned(self, generations: int) -> SigmaRule:
        """The rule for a run of so many generations."""
        return self

    def initial_state(self, sigma: float) -> State:
        """What has to be remembered of the sigma that a run begins with."""
        return {}

    @abstractmethod
    def sigma(self, start: float, generation: int, state: State) -> float:
        """Sigma of a generation.

        Args:
            start: The configured sigma.
            generation: Number of the generation.
            state: What `updated` or `initial_state` returned last.
        """

    def updated(self, sigma: float, slope: float) -> State:
        """What has to be remembered after a generation.

        Args:
            sigma: The generation's.
            slope: Estimate of dL_σ/dσ, averaged over the parameters.
        """
        return {}


@dataclass(frozen=True)
class Constant(SigmaRule):
    """Sigma stays what it is."""

    def sigma(self, start: float, generation: int, state: State) -> float:
        """See `SigmaRule.sigma`."""
        return start


def _linear(start: float, end: float, t: float) -> float:
    return start + (end - start) * t


def _cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


def _exponential(start: float, end: float, t: float) -> float:
    return start * (end / start) ** t


# (start, end, part of the run in [0, 1]) -> sigma.
SHAPES: Mapping[str, Callable[[float, float, float], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
}


@dataclass(frozen=True)
class Scheduled(SigmaRule):
    """Sigma goes to `end` in a curve of the given shape, and stays there.

    Attributes:
        end: Sigma at the end, in the unit of the weights.
        shape: One of `SHAPES`; exponential multiplies by the same factor in every generation.
        generations: Length of the curve; None is the length of the run, and the start until that is known.

    Raises:
        ConfigError: If an argument is out of range.
    """

    end: float
    shape: str = "cosine"
    generations: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.end < math.inf:
            raise ConfigError(f"pgpe.sigma_rule.end must be positive, got {self.end}")
        if self.shape not in SHAPES:
            raise ConfigError(f"pgpe.sigma_rule.shape must be one of {', '.join(SHAPES)}, got {self.shape}")
        if self.generations is not None and self.generations < 1:
            raise ConfigError(f"pgpe.sigma_rule.generations must be at least 1, or null, got {self.generations}")

    def planned(self, generations: int) -> Scheduled:
        """See `SigmaRule.planned`."""
        return self if self.generations is not None else replace(self, generations=generations)

    def sigma(self, start: float, generation: int, state: State) -> float:
        """See `SigmaRule.sigma`."""
        if self.generations is None:
            return start
        part = min(1.0, generation / max(1, self.generations - 1))
        return SHAPES[self.shape](start, self.end, part)


@dataclass(frozen=True)
class Learned(SigmaRule):
    """One sigma for all parameters, moved against dL_σ/dσ (Sehnke et al., Neural Networks 2010).

    With antithetic pairs ε_i = σ z_i of d parameters, m_i the mean loss of a pair and b the mean of all,

        slope = 1/(n-1) Σ_i (m_i - b) · (|z_i|² - d) / (σ d)

    is PGPE's σ-gradient, averaged over the parameters; n-1 because b is estimated from the same pairs. Sigma shrinks
    where the loss is convex around the centre and grows where it is concave.

    Attributes:
        rate: Learning rate of sigma.
        max_change: Largest change in one generation, as a fraction of sigma, in (0, 1).
        minimum: Sigma never falls below: changes that are relative to sigma could otherwise shrink it for ever.

    Raises:
        ConfigError: If an argument is out of range.
    """

    rate: float = 0.1
    max_change: float = 0.2
    minimum: float = 1e-4

    learns = True

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise ConfigError(f"pgpe.sigma_rule.rate must be positive, got {self.rate}")
        if not 0 < self.max_change < 1:
            raise ConfigError(f"pgpe.sigma_rule.max_change must be between 0 and 1, got {self.max_change}")
        if not 0 < self.minimum < math.inf:
            raise ConfigError(f"pgpe.sigma_rule.minimum must be positive, got {self.minimum}")

    def initial_state(self, sigma: float) -> State:
        """See `SigmaRule.initial_state`."""
        if sigma < self.minimum:
            raise ConfigError(f"pgpe.sigma {sigma} begins below pgpe.sigma_rule.minimum {self.minimum}")
        return {"sigma": torch.tensor(sigma, dtype=torch.float64)}

    def sigma(self, start: float, generation: int, state: State) -> float:
        """See `SigmaRule.sigma`."""
        return float(state["sigma"])

    def updated(self, sigma: float, slope: float) -> State:
        """See `SigmaRule.updated`."""
        limit = self.max_change * sigma
        change = min(limit, max(-limit, -self.rate * slope))
        return {"sigma": torch.tensor(max(self.minimum, sigma + change), dtype=torch.float64)}
