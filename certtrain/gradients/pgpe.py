"""PGPE: the gradient of a Gaussian-smoothed loss from loss values alone (Sehnke et al., Neural Networks 2010).

L_σ(θ) = E L(θ + ε) with ε ~ N(0, σ² I) is smooth wherever L is merely bounded on compact sets, and

    ∇L_σ(θ) ≈ 1/n Σ_i ε_i (L(θ + ε_i) - L(θ - ε_i)) / (2 σ²)      over n antithetic pairs

is unbiased (Gaussian Loss Smoothing, arXiv 2403.07095); in d dimensions its relative squared error is about d/n. A
control variate takes most of the noise away, and shrinkage most of what is left. Raw differences are the default; these
two, shaped fitness, a sigma that changes, sigma per layer and low-rank noise are parts that can be exchanged, each in a
file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.gradients.base import (
    ALONE,
    Choice,
    Cost,
    Estimate,
    EstimationError,
    GradientEstimator,
    LossFunction,
    State,
)
from certtrain.gradients.control_variate import ControlVariate, Draw, joined, mean_and_noise, product
from certtrain.gradients.correction import Correction, Guess
from certtrain.gradients.fitness import SHAPINGS, shape
from certtrain.gradients.layer_scale import LayerScale
from certtrain.gradients.members import Antithetic
from certtrain.gradients.noise import GaussianNoise, NoiseFamily
from certtrain.gradients.pairs import Blocks, pairs_at_once, weigh
from certtrain.gradients.population import STRATEGIES, evaluate
from certtrain.gradients.ranks import Ranks
from certtrain.gradients.shrinkage import SHRINKAGES
from certtrain.gradients.sigma import Constant, SigmaRule
from certtrain.gradients.sigma_unit import UNITS, Deviation
from certtrain.gradients.strategy import affordable, against_vectorising, fastest
from certtrain.memory import available_bytes
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class PGPE(GradientEstimator):
    """Antithetic finite differences of a population.

    Attributes:
        sigma: Standard deviation of the weight noise, in the first generation.
        population_size: Members P, an even number: P/2 antithetic pairs.
        seed: Seed of the noise.
        strategy: How members are evaluated, see `evaluate`. "auto" is open: `choose` measures and `decided` settles it;
            an estimate before that measures by itself, every time.
        member_chunk: Members per vectorised call.
        fitness: What is made of the losses, see `fitness.SHAPINGS`.
        sigma_rule: How sigma changes.
        noise: Makes the noise of a sigma.
        layer_scale: Factors of sigma for some parameters.
        max_dropped: Largest fraction of pairs, 0 to 1, that may be dropped because a loss is not finite.
        control_variate: Guesses the gradient; None leaves all of it to the population.
        shrinkage: How much is kept of what the population adds to the guess, see `shrinkage.SHRINKAGES`.
        sigma_unit: What sigma is a multiple of, see `sigma_unit.UNITS`.

    Raises:
        ConfigError: If sigma is not positive, the population odd, a name unknown, the chunk empty, the fraction none,
            a learned sigma is asked for with noise that is not Gaussian, or a control variate with shaped losses.
    """

    sigma: float
    population_size: int
    seed: int = 0
    strategy: str = "vmap"
    member_chunk: int = 64
    fitness: str = "raw"
    sigma_rule: SigmaRule = field(default_factory=Constant)
    noise: NoiseFamily = GaussianNoise
    layer_scale: LayerScale = field(default_factory=LayerScale)
    max_dropped: float = 0.5
    control_variate: ControlVariate | None = None
    shrinkage: str = "none"
    sigma_unit: str = "absolute"

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ConfigError(f"pgpe.sigma must be positive, got {self.sigma}")
        if self.population_size < 2 or self.population_size % 2:
            raise ConfigError(
                f"pgpe.population_size must be even and at least 2 (antithetic pairs), got {self.population_size}"
            )
        names = {"strategy": STRATEGIES, "fitness": SHAPINGS, "shrinkage": SHRINKAGES, "sigma_unit": UNITS}
        for key, legal in names.items():
            value = getattr(self, key)
            if value not in legal:
                raise ConfigError(f"pgpe.{key} must be one of {', '.join(legal)}, got {value}")
        if self.member_chunk < 1:
            raise ConfigError(f"pgpe.member_chunk must be at least 1, got {self.member_chunk}")
        if not 0 <= self.max_dropped <= 1:
            raise ConfigError(f"pgpe.max_dropped is a fraction of the pairs, 0 to 1, got {self.max_dropped}")
        if self.control_variate is not None and self.fitness != "raw":
            raise ConfigError(
                f"pgpe.fitness={self.fitness} needs pgpe.control_variate=none: a gradient says nothing of shaped losses"
            )
        gaussian = self.noise(self.seed, self.sigma).gaussian  # made once here, so that wrong options show at once
        if self.sigma_rule.learns and not gaussian:
            raise ConfigError("pgpe/sigma_rule=learned needs pgpe/noise=gaussian: its slope is one of normal densities")

    @property
    def evaluations(self) -> int:
        """The whole population; gradients of the control variate come on top."""
        return self.population_size

    @property
    def guesses(self) -> int:
        """Those of the control variate; one that measures how many it needs begins with few."""
        control = self.control_variate
        return 0 if control is None else control.gradients(control.initial_state())

    @property
    def splits(self) -> Literal["population", "batch"]:
        """Losses are numbers, so the population is what is cheap to divide."""
        return "population"

    @property
    def differentiates(self) -> bool:
        """A control variate does."""
        return self.control_variate is not None

    @property
    def unbiased(self) -> bool:
        """Raw losses are; shaped ones lose their scale, and so does what is shrunk, which needs a guess.

        With noise that is not Gaussian, differences are no derivatives of the loss that it smooths.
        """
        whole = self.control_variate is None or self.shrinkage == "none"
        return self.fitness == "raw" and whole and self.noise(self.seed, self.sigma).gaussian

    @property
    def at_once(self) -> int:
        """See `GradientEstimator.at_once`."""
        return 1 if self.strategy == "loop" else min(self.member_chunk, self.population_size)

    @property
    def is_open(self) -> bool:
        """See `GradientEstimator.is_open`."""
        return self.strategy == "auto"

    def choose(self, loss: LossFunction, params: Params, cost: Cost | None = None) -> Choice | None:
        """See `GradientEstimator.choose`; members are those of an estimate's first vectorised call."""
        if not self.is_open:
            return None
        params = {name: p.detach() for name, p in params.items()}
        pairs = min(pairs_at_once(params, self.population_size // 2), (self.member_chunk + 1) // 2)
        members = min(self.member_chunk, 2 * pairs)
        if cost is not None:
            device = next(iter(params.values())).device
            if reason := against_vectorising(cost, members, available_bytes(device)):
                return Choice("loop", {"loop": cost.seconds}, {}, {"vmap": reason})
            members = affordable(cost, members)
        sigma = Deviation.at(params, self.sigma, self.sigma_unit).sigma
        epsilon = self.noise(self.seed, sigma).sample(params, 0, range((members + 1) // 2))
        return fastest(loss, Antithetic(params, epsilon), members)

    def decided(self, strategy: str) -> PGPE:
        """See `GradientEstimator.decided`."""
        return replace(self, strategy=strategy) if self.strategy == "auto" else self

    def planned(self, generations: int) -> PGPE:
        """See `GradientEstimator.planned`."""
        return replace(self, sigma_rule=self.sigma_rule.planned(generations))

    def rehearsing(self) -> PGPE:
        """See `GradientEstimator.rehearsing`."""
        control = None if self.control_variate is None else self.control_variate.rehearsing()
        return replace(self, population_size=2, control_variate=control)

    def initial_state(self, params: Params) -> State:
        """See `GradientEstimator.initial_state`."""
        own = {} if self.control_variate is None else self.control_variate.initial_state()
        return {**self.sigma_rule.initial_state(self.sigma), **own}

    def estimate(
        self,
        loss: LossFunction,
        params: Params,
        generation: int,
        state: State | None = None,
        ranks: Ranks = ALONE,
    ) -> Estimate:
        """See `GradientEstimator.estimate`. A pair with a loss that is not finite is dropped and counted."""
        params = {name: p.detach() for name, p in params.items()}
        state = state or self.initial_state(params)
        deviation = Deviation.at(params, self.sigma_rule.sigma(self.sigma, generation, state), self.sigma_unit)
        sigma = deviation.sigma
        noise, scale = self.noise(self.seed, sigma), self.layer_scale.of(params)
        pairs = self.population_size // 2
        own = ranks.share(pairs)
        # Before the noise is held: a backward pass takes memory, too.
        guess = self._guess(loss, params, lambda which: Blocks(noise, scale, params, generation, which), state, ranks)
        blocks = Blocks(noise, scale, params, generation, own).kept()
        values, products = self._evaluate(loss, params, blocks, guess.vector)
        values = ranks.reduce(values)
        gathered = ranks.gather(torch.cat([values, products[None]]) if guess.vector else values, pairs)
        losses, guessed = gathered[:2], gathered[2:].sum(0)
        finite = self._finite(losses)
        weights, deviations = self._weights(losses, guessed, finite, sigma)
        mine = slice(own.start, own.stop)
        sums = weigh(blocks, noise, scale, params, weights[mine], deviations[mine], ranks)
        correction = Correction.of(guess, sums, int(finite.sum()), self.shrinkage)
        return self._conclude(correction, losses[:, finite], deviation, sums.slope, state)

    def _guess(self, loss: LossFunction, params: Params, draw: Draw, state: State, ranks: Ranks) -> Guess:
        """h, the same on all ranks; none where none is asked for, or where it would be no number."""
        if self.control_variate is None:
            return Guess({})
        try:
            own = self.control_variate.parts(loss, params, draw, state, ranks)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            raise ConfigError("the loss has no derivatives: pgpe.control_variate=none needs its values only") from error
        guess, noise = mean_and_noise(ranks.whole(joined(own)))
        return Guess(guess, noise) if all(bool(g.isfinite().all()) for g in guess.values()) else Guess({})

    def _evaluate(
        self, loss: LossFunction, params: Params, blocks: Iterable[Params], guess: Params
    ) -> tuple[Tensor, Tensor]:
        """Losses [2, own pairs], row 0 at θ + ε, row 1 at θ - ε; and h·ε of each pair, 0 without a guess."""
        first = next(iter(params.values()))
        losses = [torch.empty((2, 0), dtype=first.dtype, device=first.device)]
        products = [losses[0][0]]
        for epsilon in blocks:
            values = evaluate(loss, Antithetic(params, epsilon), strategy=self.strategy, chunk=self.member_chunk)
            losses.append(values.reshape(2, -1))
            products.append(product(guess, epsilon, like=losses[-1][0]))
        return torch.cat(losses, dim=1), torch.cat(products)

    def _finite(self, losses: Tensor) -> Tensor:
        """[pairs]: which pairs count; both losses are finite."""
        finite = losses.isfinite().all(0)
        pairs, dropped = len(finite), int((~finite).sum())
        if dropped == pairs:
            raise EstimationError(
                f"none of the {pairs} antithetic pairs has a finite loss: lower optimizer.lr or pgpe.sigma"
            )
        if dropped > self.max_dropped * pairs:
            raise EstimationError(
                f"{dropped} of the {pairs} antithetic pairs have no finite loss, more than pgpe.max_dropped="
                f"{self.max_dropped:g} allows: lower optimizer.lr or pgpe.sigma"
            )
        return finite

    def _weights(self, losses: Tensor, guessed: Tensor, finite: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """((L⁺ - L⁻) / 2 - h·ε) / σ² per pair, and how far its mean loss is from that of all; 0 where dropped."""
        shaped = shape(self.fitness, losses, finite)
        means = shaped.mean(0)
        deviations = torch.where(finite, means - means[finite].mean(), torch.zeros_like(means))
        weights = ((shaped[0] - shaped[1]) / 2 - guessed) / sigma**2
        return torch.where(finite, weights, torch.zeros_like(weights)), deviations

    def _conclude(
        self, correction: Correction, losses: Tensor, deviation: Deviation, slope: float, state: State
    ) -> Estimate:
        """The estimate from the losses [2, pairs] of the pairs that count."""
        pairs, numbers = losses.shape[1], sum(c.numel() for c in correction.vector.values())
        # One pair has no deviation from the mean of all: it says nothing about sigma.
        steepness = slope / (max(1, pairs - 1) * deviation.sigma * numbers)
        after = self.sigma_rule.updated(deviation.told, steepness * deviation.unit)
        statistics = {
            "sigma": deviation.sigma,
            "sigma_relative": deviation.relative,
            "population/std": float(losses.std()),
            "population/dropped_pairs": float(self.population_size // 2 - pairs),
            **correction.statistics(),
        }
        if self.control_variate is not None:
            has = bool(correction.guess.vector)
            statistics["control_variate/dropped"] = 0.0 if has else 1.0
            statistics["control_variate/gradients"] = float(self.control_variate.gradients(state))
            after |= self.control_variate.updated(state, correction.found(pairs) if has else None)
        return Estimate(correction.shrunk, losses.mean(), statistics, after)
