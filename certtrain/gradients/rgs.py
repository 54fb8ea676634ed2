"""RGS: gradients at randomly perturbed weights, averaged (Gaussian Loss Smoothing, arXiv 2403.07095).

    g = 1/n Σ_i ∇L(θ + ε_i),   ε_i ~ N(0, σ² I)

Needs far fewer evaluations than PGPE, and is unbiased for ∇L_σ where L is absolutely continuous. Where L jumps, the
mean of pointwise gradients misses the jumps and the estimate is biased.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.gradients.backprop import differentiate
from certtrain.gradients.base import ALONE, Estimate, EstimationError, GradientEstimator, LossFunction, State
from certtrain.gradients.members import Antithetic, Drawn, Members
from certtrain.gradients.noise import GaussianNoise
from certtrain.gradients.ranks import Ranks
from certtrain.gradients.sigma_unit import UNITS, Deviation
from certtrain.gradients.statistics import signal_to_noise, squared_norm, trace_of_covariance
from certtrain.networks.graph import Params


def _in_a_loop(loss: LossFunction, members: Params) -> tuple[Tensor, Params]:
    count = len(next(iter(members.values())))
    found = [differentiate(loss, {name: p[i] for name, p in members.items()}) for i in range(count)]
    values, gradients = zip(*found, strict=True)
    return torch.stack(values), {name: torch.stack([g[name] for g in gradients]) for name in members}


def _vectorised(loss: LossFunction, members: Params) -> tuple[Tensor, Params]:
    gradients, values = torch.func.vmap(torch.func.grad_and_value(loss))(members)
    return values.detach(), {name: g.detach() for name, g in gradients.items()}


# Parameters [members, *shape] -> losses [members] and gradients [members, *shape].
WAYS: Mapping[str, Callable[[LossFunction, Params], tuple[Tensor, Params]]] = {"loop": _in_a_loop, "vmap": _vectorised}

# Sampling -> which members draws of noise make.
SAMPLINGS: Mapping[str, type[Members]] = {"antithetic": Antithetic, "independent": Drawn}


@dataclass(frozen=True)
class RGS(GradientEstimator):
    """The mean of gradients at perturbed weights.

    Attributes:
        sigma: Standard deviation of the weight noise.
        samples: Gradients n per estimate; an even number if they come in antithetic pairs.
        seed: Seed of the noise.
        sampling: "antithetic" takes θ + ε and θ - ε, which cancels all odd terms of the noise; "independent" draws
            every sample anew.
        strategy: "loop" differentiates one sample after the other, "vmap" a chunk in one call.
        member_chunk: Gradients held at once: bounds the memory, never changes a result beyond rounding.
        sigma_unit: What sigma is a multiple of, see `sigma_unit.UNITS`.

    Raises:
        ConfigError: If sigma is not positive, a name unknown, the chunk empty, or the samples do not come out even.
    """

    sigma: float
    samples: int
    seed: int = 0
    sampling: str = "antithetic"
    strategy: str = "loop"
    member_chunk: int = 4
    sigma_unit: str = "absolute"

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ConfigError(f"rgs.sigma must be positive, got {self.sigma}")
        named = (("strategy", WAYS), ("sampling", SAMPLINGS), ("sigma_unit", UNITS))
        for key, value, legal in ((key, getattr(self, key), legal) for key, legal in named):
            if value not in legal:
                raise ConfigError(f"rgs.{key} must be one of {', '.join(legal)}, got {value}")
        if self.samples < 1 or self.samples % SAMPLINGS[self.sampling].per_draw:
            raise ConfigError(
                f"rgs.samples must be at least 1, and even with rgs.sampling=antithetic, got {self.samples}"
            )
        if self.member_chunk < 1:
            raise ConfigError(f"rgs.member_chunk must be at least 1, got {self.member_chunk}")

    @property
    def evaluations(self) -> int:
        """One per sample."""
        return self.samples

    @property
    def splits(self) -> Literal["population", "batch"]:
        """Every sample is differentiated, so the batch is divided as it is for the plain gradient."""
        return "batch"

    @property
    def at_once(self) -> int:
        """See `GradientEstimator.at_once`; gradients of a chunk are held in either way."""
        return min(self.member_chunk, self.samples)

    def rehearsing(self) -> RGS:
        """See `GradientEstimator.rehearsing`."""
        return replace(self, samples=SAMPLINGS[self.sampling].per_draw)

    def estimate(
        self,
        loss: LossFunction,
        params: Params,
        generation: int,
        state: State | None = None,
        ranks: Ranks = ALONE,
    ) -> Estimate:
        """See `GradientEstimator.estimate`. A sample that is not finite is dropped with its twin, and counted."""
        params = {name: p.detach() for name, p in params.items()}
        deviation = Deviation.at(params, self.sigma, self.sigma_unit)
        draws = self.samples // SAMPLINGS[self.sampling].per_draw
        total = {name: torch.zeros_like(p) for name, p in params.items()}
        squares, kept, losses = 0.0, 0, []
        for part_of_values, part_of_gradients in self._draws(loss, params, generation, draws, deviation.sigma):
            # Before anything is judged: what is not finite on one rank's images is dropped on all.
            values, gradients = ranks.reduce(part_of_values), ranks.sum(part_of_gradients)
            norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients.values()]).norm(dim=0)
            finite = values.isfinite().all(0) & norms.isfinite()
            for name, g in gradients.items():
                total[name] += g[finite].sum(0)
            squares += float(norms[finite].square().sum())
            kept += int(finite.sum())
            losses.append(values[:, finite])
        if kept == 0:
            raise EstimationError(f"none of the {self.samples} samples is finite: lower optimizer.lr or rgs.sigma")
        found = torch.cat(losses, dim=1)
        gradient = {name: g / kept for name, g in total.items()}
        square = squared_norm(gradient)
        statistics = {
            "sigma": deviation.sigma,
            "sigma_relative": deviation.relative,
            "population/std": float(found.std()) if found.numel() > 1 else 0.0,
            "population/dropped_samples": float(self.samples - found.numel()),
            "gradient_snr": signal_to_noise(square, trace_of_covariance(square, squares, kept)),
        }
        return Estimate(gradient, found.mean(), statistics)

    def _draws(
        self, loss: LossFunction, params: Params, generation: int, draws: int, sigma: float
    ) -> Iterator[tuple[Tensor, Params]]:
        """Losses [members per draw, draws] and mean gradients [draws, *shape], some draws at a time."""
        noise = GaussianNoise(self.seed, sigma)
        per_draw = SAMPLINGS[self.sampling].per_draw
        step = max(1, self.member_chunk // per_draw)
        for start in range(0, draws, step):
            epsilon = noise.sample(params, generation, range(start, min(start + step, draws)))
            members = SAMPLINGS[self.sampling](params, epsilon)
            values, gradients = WAYS[self.strategy](loss, members.some(0, len(members)))
            yield (
                values.reshape(per_draw, -1),
                {name: g.reshape(per_draw, -1, *g.shape[1:]).mean(0) for name, g in gradients.items()},
            )
