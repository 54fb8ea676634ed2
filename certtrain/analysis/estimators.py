"""Bias and noise of gradient estimators against the gradient of the smoothed loss.

∇L_σ itself is known as the mean of an unbiased estimator alone: PGPE with a control variate h, the mean of gradients at
weights with noise of their own. K independent replicates r_k of it, and K replicates g_k of an estimator, give

    relative squared bias  |E g - ∇L_σ|² / |∇L_σ|²    and the cosine of E g and ∇L_σ,

both from products of different replicates (see `replicates`), so that neither the estimator's noise nor the reference's
counts as bias. The interval is as wide as the reference is noisy: a ratio whose interval contains 0 and 1 says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.analysis.replicates import Estimated, jackknife, mean_square, product_of_means
from certtrain.gradients import PGPE, RGS, Backprop, GradientEstimator, LossFunction, Ranks, State
from certtrain.gradients.base import ALONE
from certtrain.gradients.control_variate import ControlVariate, Draw
from certtrain.gradients.plain_gradient import PlainGradient
from certtrain.gradients.smoothed_gradient import SmoothedGradient
from certtrain.networks.graph import Params

# Of the reference, the guess that it corrects, and the estimators: independent of each other, whatever the seed is.
REFERENCE, GUESS = 1 << 20, 1 << 21


@dataclass(frozen=True)
class Known(ControlVariate):
    """A vector that somebody has found out already.

    Attributes:
        vector: h.
    """

    vector: Params

    def gradients(self, state: State) -> int:
        """None are taken."""
        return 0

    def parts(self, loss: LossFunction, params: Params, draw: Draw, state: State, ranks: Ranks = ALONE) -> list[Params]:
        """See `ControlVariate.parts`."""
        return [self.vector]


@dataclass(frozen=True)
class Budget:
    """What is spent.

    Attributes:
        replicates: K, at least 3.
        reference_pairs: Antithetic pairs of each replicate of the reference.
        guess_samples: Gradients behind the reference's control variate, an even number.
        population_size: Members of the PGPE estimators that are judged.
        samples: Gradients of the RGS estimators that are judged.
    """

    replicates: int = 16
    reference_pairs: int = 64
    guess_samples: int = 64
    population_size: int = 64
    samples: int = 8


@dataclass(frozen=True)
class Quality:
    """How good an estimator is, at its budget.

    Attributes:
        evaluations: Losses and gradients of one estimate.
        bias: |E g - ∇L_σ|² / |∇L_σ|².
        cosine: Of E g and ∇L_σ; NaN where either is not told from zero.
        noise: E|g - E g|² / |∇L_σ|²; NaN where ∇L_σ is not told from zero.
        signal_to_noise: |E g|² / E|g - E g|²; infinite without noise.
    """

    evaluations: int
    bias: Estimated
    cosine: Estimated
    noise: float
    signal_to_noise: float


@dataclass(frozen=True)
class Gradients:
    """All estimators at one σ.

    Attributes:
        sigma: Of the noise, in the unit of the weights.
        squared_norm: |∇L_σ|², debiased; where its interval contains 0, the reference is too noisy for the rest.
        estimators: Name -> how good.
    """

    sigma: float
    squared_norm: Estimated
    estimators: Mapping[str, Quality]


def estimators(sigma: float, budget: Budget, seed: int, strategy: str) -> dict[str, GradientEstimator]:
    """What is judged, by name: PGPE by itself, with each control variate, and shrunk towards the plain gradient."""

    def pgpe(control: ControlVariate | None, shrinkage: str = "none") -> PGPE:
        size = budget.population_size
        return PGPE(sigma, size, seed, strategy, control_variate=control, shrinkage=shrinkage)

    return {
        "grad": Backprop(),
        "rgs": RGS(sigma, budget.samples, seed),
        "pgpe": pgpe(None),
        "pgpe+grad": pgpe(PlainGradient()),
        "pgpe+rgs": pgpe(SmoothedGradient(budget.samples)),
        "shrunk": pgpe(PlainGradient(), "james_stein"),
    }


def gradients(loss: LossFunction, params: Params, sigma: float, budget: Budget, seed: int, strategy: str) -> Gradients:
    """Judges all estimators at one σ.

    Args:
        loss: L, with derivatives almost everywhere.
        params: θ.
        sigma: Of the noise, in the unit of the weights.
        budget: What is spent.
        seed: Of all noise.
        strategy: See `gradients.evaluate`.
    """
    guess = RGS(sigma, budget.guess_samples, seed).estimate(loss, params, GUESS).gradient
    unbiased = PGPE(sigma, 2 * budget.reference_pairs, seed, strategy, control_variate=Known(guess))
    reference = _replicates(unbiased, loss, params, budget.replicates, REFERENCE)
    own = reference @ reference.T
    told = {}
    for name, estimator in estimators(sigma, budget, seed, strategy).items():
        found = _replicates(estimator, loss, params, budget.replicates, 0)
        told[name] = _quality(_evaluations(estimator), found, reference, own)
    return Gradients(sigma, jackknife(product_of_means, own), told)


def _evaluations(estimator: GradientEstimator) -> int:
    """Losses and gradients of one estimate, those of a control variate too."""
    control = getattr(estimator, "control_variate", None)
    extra = 0 if control is None else control.gradients({})
    return estimator.evaluations + extra


def _replicates(
    estimator: GradientEstimator, loss: LossFunction, params: Params, count: int, first: int
) -> Float[Tensor, "replicates weights"]:
    """Independent estimates, as vectors in double precision; one that never varies is computed once."""
    if not estimator.perturbs:
        return _vector(estimator.estimate(loss, params, first).gradient).expand(count, -1)
    return torch.stack([_vector(estimator.estimate(loss, params, first + k).gradient) for k in range(count)])


def _vector(gradient: Params) -> Tensor:
    return torch.cat([g.flatten() for g in gradient.values()]).to("cpu", torch.float64)


def _quality(evaluations: int, found: Tensor, reference: Tensor, own: Tensor) -> Quality:
    off, gram, cross = found - reference, found @ found.T, found @ reference.T
    difference = off @ off.T
    square, norm = product_of_means(gram), product_of_means(own)
    spread = max(0.0, mean_square(gram) - square)
    return Quality(
        evaluations,
        jackknife(_ratio, difference, own),
        jackknife(_cosine, cross, gram, own),
        spread / norm if norm > 0 else math.nan,
        square / spread if spread > 1e-12 * abs(square) else math.inf,
    )


def _ratio(difference: Tensor, own: Tensor) -> float:
    norm = product_of_means(own)
    return product_of_means(difference) / norm if norm > 0 else math.nan


def _cosine(cross: Tensor, gram: Tensor, own: Tensor) -> float:
    squares: Sequence[float] = (product_of_means(gram), product_of_means(own))
    return product_of_means(cross) / math.sqrt(math.prod(squares)) if min(squares) > 0 else math.nan
