"""How many gradients a control variate takes the mean of, from what was measured of them: the most for the time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from certtrain.gradients.base import ALONE, LossFunction, State
from certtrain.gradients.control_variate import ControlVariate, Draw, Found
from certtrain.gradients.ranks import Ranks
from certtrain.gradients.smoothed_gradient import SmoothedGradient, halves
from certtrain.networks.graph import Params

# Losses that could be evaluated in the time of one gradient, about.
GRADIENT_COST = 3.0
# Fewest and most samples; powers of two between them, so that the last bits of what is measured seldom decide.
FEWEST, MOST = 4, 64
# Weight of the past in what is measured.
MEMORY = 0.99
# What the mean of gradients is taken to miss of |∇L_σ|² at least: less than the population can tell in a hundred
# generations, and without it no number of samples would be too large.
LEAST_MISSED = 0.05

_NAMES = ("square", "variance", "missed")


@dataclass(frozen=True)
class AdaptiveGradient(ControlVariate):
    """As `SmoothedGradient`, with as many samples s as make the error per time smallest.

    With n pairs, |∇L_σ - E h|² = B and the variance V of one sample, the error of the estimate is proportional to
    B + V/s, shrunk or not, and its time to 2n + c s. Their product is smallest at s = √(2 n V / (c B)). V is known from
    how far the two halves of the samples are apart, B from what the population adds, averaged over generations.
    """

    def rehearsing(self) -> SmoothedGradient:
        """See `ControlVariate.rehearsing`."""
        return SmoothedGradient(samples=2)

    def initial_state(self) -> State:
        """See `ControlVariate.initial_state`."""
        measured = {_key(name): torch.zeros((), dtype=torch.float64) for name in _NAMES}
        return {_key("samples"): torch.tensor(FEWEST), **measured}

    def gradients(self, state: State) -> int:
        """As many as what was measured so far asks for."""
        return int(state[_key("samples")]) if _key("samples") in state else FEWEST

    def parts(self, loss: LossFunction, params: Params, draw: Draw, state: State, ranks: Ranks = ALONE) -> list[Params]:
        """See `ControlVariate.parts`."""
        return halves(loss, params, draw, self.gradients(state), ranks)

    def updated(self, state: State, found: Found | None) -> State:
        """See `ControlVariate.updated`; what is not finite tells nothing."""
        own = {key: value for key, value in state.items() if key.startswith(_key(""))} or self.initial_state()
        if found is None:
            return own
        samples = self.gradients(own)
        new = {
            "square": found.own - found.noise,
            "variance": found.noise * samples,
            "missed": found.missed - found.noise,
        }
        if not all(map(math.isfinite, new.values())):
            return own
        means = {name: MEMORY * float(own[_key(name)]) + (1 - MEMORY) * value for name, value in new.items()}
        samples = _best(found.pairs, means["variance"], means["missed"], means["square"])
        told = {_key(name): torch.tensor(value, dtype=torch.float64) for name, value in means.items()}
        return {_key("samples"): torch.tensor(samples), **told}


def _key(name: str) -> str:
    return f"control_{name}"


def _best(pairs: int, variance: float, missed: float, square: float) -> int:
    """The power of two nearest to √(2 n V / (c B)), within limits; all three in the same unit."""
    bias = max(missed, LEAST_MISSED * square)
    if bias <= 0:
        return MOST
    ideal = math.sqrt(2 * pairs * max(0.0, variance) / (GRADIENT_COST * bias))
    return min(MOST, max(FEWEST, 2 ** round(math.log2(max(1.0, ideal)))))
