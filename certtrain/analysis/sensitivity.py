"""How much a loss changes where the weights change a little.

"On the Paradox of Certified Training" (Jovanović et al., TMLR 10/2022) calls a relaxation sensitive whose loss reacts
strongly to small perturbations of the weights. It is measured here at a scale, as

    S_ρ = √E (L(θ + ε) - L(θ))² / L(θ),    ε Gaussian with √E|ε|² = ρ ‖θ‖,

and with a part that no gradient can tell, the shift of the mean: (L_σ(θ) - L(θ)) / L(θ). Both are relative to the loss,
so that relaxations whose losses have other sizes compare. This is our measure, not the publication's table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from certtrain.analysis.subject import CHUNK
from certtrain.gradients import LossFunction, evaluate
from certtrain.gradients.members import Antithetic
from certtrain.gradients.noise import GaussianNoise
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class Sensitivity:
    """Of one loss to noise of one size.

    Attributes:
        loss: L(θ).
        change: S_ρ.
        shift: (L_σ(θ) - L(θ)) / L(θ).
        shift_error: Its standard error.
    """

    loss: float
    change: float
    shift: float
    shift_error: float


def sensitivity(loss: LossFunction, params: Params, sigma: float, pairs: int, seed: int, strategy: str) -> Sensitivity:
    """Measures by antithetic pairs.

    Args:
        loss: L, positive.
        params: θ.
        sigma: Of the noise, in the unit of the weights.
        pairs: How many, at least 2.
        seed: Of the noise.
        strategy: See `gradients.evaluate`.
    """
    members = Antithetic(params, GaussianNoise(seed, sigma).sample(params, 0, range(pairs)))
    with torch.no_grad():
        centre = float(loss(params))
    changes = evaluate(loss, members, strategy=strategy, chunk=CHUNK).to(torch.float64) / centre - 1
    means = changes.reshape(2, pairs).mean(0)
    change = math.sqrt(float(changes.square().mean()))
    return Sensitivity(centre, change, float(means.mean()), float(means.std()) / math.sqrt(pairs))
