"""Control variates: what a gradient explains of the losses of a population, the population need not find out.

For any vector h that does not depend on the noise ε of the pairs, E ε (h·ε) / σ² = h, so that

    ĝ = h + 1/n Σ_i ε_i [(L(θ + ε_i) - L(θ - ε_i)) / 2 - h·ε_i] / σ²

is as unbiased for ∇L_σ as PGPE without it (h = 0). Its variance is about d/n · |∇L_σ - h|² and what curvature adds,
where that of PGPE is about d/n · |∇L_σ|²: a guess that is nearly right takes nearly all of the noise away, and a wrong
one only costs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.gradients.backprop import differentiate
from certtrain.gradients.base import LossFunction
from certtrain.gradients.statistics import squared_norm
from certtrain.networks.graph import Params

# Numbers of the pairs whose noise a control variate may draw begin here: no population is as large.
OWN_PAIRS = 1 << 40

# Which pairs -> their noise, block by block: name -> [pairs of the block, *shape].
Draw = Callable[[range], Iterable[Params]]


class ControlVariate(ABC):
    """Guesses the gradient of the smoothed loss, without the noise of the population."""

    def rehearsing(self) -> ControlVariate:
        """The same at the least cost."""
        return self

    @abstractmethod
    def guess(self, loss: LossFunction, params: Params, draw: Draw) -> Params:
        """The vector h.

        Args:
            loss: Of this process's part of the batch, if several divide it.
            params: Name -> centre.
            draw: Noise of pairs from `OWN_PAIRS` on, distributed like that of the population.
        """


@dataclass(frozen=True)
class PlainGradient(ControlVariate):
    """h = ∇L(θ): one backward pass. Good in early training, and where the loss is smooth on the scale of the noise."""

    def guess(self, loss: LossFunction, params: Params, draw: Draw) -> Params:
        """See `ControlVariate`."""
        return differentiate(loss, params)[1]


@dataclass(frozen=True)
class SmoothedGradient(ControlVariate):
    """h = the mean of gradients at θ ± ε, which is ∇L_σ but for the loss's jumps (RGS, arXiv 2403.07095).

    Attributes:
        samples: Gradients, an even number: they come in antithetic pairs.

    Raises:
        ConfigError: If the number is odd or not positive.
    """

    samples: int = 8

    def __post_init__(self) -> None:
        if self.samples < 2 or self.samples % 2:
            raise ConfigError(f"pgpe.control_samples must be even and at least 2, got {self.samples}")

    def rehearsing(self) -> SmoothedGradient:
        """See `ControlVariate`."""
        return SmoothedGradient(samples=2)

    def guess(self, loss: LossFunction, params: Params, draw: Draw) -> Params:
        """See `ControlVariate`. A sample whose gradient is not finite is left out; NaN where none is left."""
        total, kept = {name: torch.zeros_like(p) for name, p in params.items()}, 0
        for block in draw(range(OWN_PAIRS, OWN_PAIRS + self.samples // 2)):
            for pair in range(len(next(iter(block.values())))):
                for sign in (1, -1):
                    moved = {name: p + sign * block[name][pair] for name, p in params.items()}
                    _, gradient = differentiate(loss, moved)
                    if all(bool(g.isfinite().all()) for g in gradient.values()):
                        total, kept = {name: total[name] + g for name, g in gradient.items()}, kept + 1
        return {name: g / kept if kept else g + torch.nan for name, g in total.items()}


def make(name: str, samples: int | None) -> ControlVariate | None:
    """The control variate of a name; None for `none`.

    Args:
        name: One of none, gradient, rgs.
        samples: Gradients of rgs; None for its default, and for the others.

    Raises:
        ConfigError: If there is none of that name, or it takes no samples.
    """
    if name not in ("none", "gradient", "rgs"):
        raise ConfigError(f"pgpe.control_variate must be one of none, gradient, rgs, got {name}")
    if name == "rgs":
        return SmoothedGradient() if samples is None else SmoothedGradient(samples)
    if samples is not None:
        raise ConfigError(f"pgpe.control_samples is for pgpe.control_variate=rgs, got {samples} with {name}")
    return PlainGradient() if name == "gradient" else None


def product(guess: Params, block: Params, like: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """h·ε of each pair of a block, in the dtype of the losses; 0 without a guess."""
    if not guess:
        return torch.zeros_like(like)
    parts = [block[name].flatten(1) @ guess[name].flatten().to(block[name].dtype) for name in guess]
    return torch.stack(parts).sum(0).to(like.dtype)


def quality(guess: Params, correction: Params, unbiased: Params, trace: float) -> dict[str, float]:
    """How good a guess was, for the record.

    Args:
        guess: h.
        correction: What the population adds to it, before it is shrunk.
        unbiased: Their sum.
        trace: Of the correction's estimated covariance.

    Returns:
        Estimates of |∇L_σ - h|² and of |∇L_σ|², both debiased by the trace, so that they may be negative: means over
        generations have a ratio, a single generation seldom has. And the cosine of h and the unbiased estimate.
    """
    norm, own = squared_norm(unbiased), squared_norm(guess)
    inner = float(torch.stack([(guess[name] * unbiased[name]).sum() for name in guess]).sum())
    return {
        "control_variate/missed": squared_norm(correction) - trace,
        "control_variate/smoothed": norm - trace,
        "control_variate/cosine": inner / max((norm * own) ** 0.5, 1e-30),
    }
