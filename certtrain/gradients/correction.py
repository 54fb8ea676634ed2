"""What a population adds to a guess at the gradient, how much of that is kept, and what it tells of the guess."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from certtrain.gradients.control_variate import Found
from certtrain.gradients.pairs import Sums
from certtrain.gradients.shrinkage import SHRINKAGES
from certtrain.gradients.statistics import signal_to_noise, squared_norm, squared_norms, trace_of_covariance
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class Guess:
    """A guess h at the gradient of the smoothed loss, the same on all processes.

    Attributes:
        vector: Name -> its part of h; empty where there is none.
        noise: Trace of the covariance of h, given the batch; NaN where that is not known.
    """

    vector: Params
    noise: float = math.nan


@dataclass(frozen=True)
class Correction:
    """The mean c of a population's contributions to an estimate g = h + c.

    Attributes:
        guess: h.
        vector: Name -> its part of c.
        squares: Name -> |c|² of its part.
        traces: Name -> trace of the estimated covariance of its part.
        factors: Name -> how much of its part is kept.
    """

    guess: Guess
    vector: Params
    squares: dict[str, float]
    traces: dict[str, float]
    factors: dict[str, float]

    @classmethod
    def of(cls, guess: Guess, sums: Sums, pairs: int, shrinkage: str) -> Correction:
        """From the sums over so many pairs. Without a guess there is nothing to shrink towards."""
        vector = {name: g / pairs for name, g in sums.gradient.items()}
        squares = squared_norms(vector)
        traces = {name: trace_of_covariance(squares[name], sums.squares[name], pairs) for name in vector}
        factors = SHRINKAGES[shrinkage if guess.vector else "none"](squares, traces)
        return cls(guess, vector, squares, traces, factors)

    @property
    def trace(self) -> float:
        """Of the whole covariance."""
        return sum(self.traces.values())

    @property
    def unbiased(self) -> Params:
        """The estimate with all of the correction."""
        return self._kept(dict.fromkeys(self.vector, 1.0))

    @property
    def shrunk(self) -> Params:
        """The estimate with as much of the correction as is kept."""
        return self._kept(self.factors)

    def found(self, pairs: int) -> Found:
        """What it tells of the guess."""
        missed = sum(self.squares.values()) - self.trace
        return Found(squared_norm(self.guess.vector), self.guess.noise, missed, pairs)

    def statistics(self) -> dict[str, float]:
        """For the record: the signal-to-noise ratio of the unbiased estimate, and how good the guess was.

        `control_variate/missed` and `smoothed` are estimates of |∇L_σ - h|² and of |∇L_σ|², both debiased by the trace,
        so that they may be negative: means over generations have a ratio, a single generation seldom has. `cosine` is
        that of h and the unbiased estimate, `shrinkage/kept` the share of c that is kept: the mean of the factors, each
        with the weight of its part of |c|².
        """
        whole = self.unbiased
        norm = squared_norm(whole)
        told = {"gradient_snr": signal_to_noise(norm, self.trace)}
        guess = self.guess.vector
        if not guess:
            return told
        inner = float(torch.stack([(guess[name] * whole[name]).sum() for name in guess]).sum())
        square = sum(self.squares.values())
        kept = sum(factor * self.squares[name] for name, factor in self.factors.items())
        return {
            **told,
            "shrinkage/kept": kept / square if square > 0 else 0.0,
            "control_variate/missed": square - self.trace,
            "control_variate/smoothed": norm - self.trace,
            "control_variate/cosine": inner / max((norm * squared_norm(guess)) ** 0.5, 1e-30),
        }

    def _kept(self, factors: dict[str, float]) -> Params:
        guess = self.guess.vector
        return {
            name: guess[name] + factors[name] * c if guess else factors[name] * c for name, c in self.vector.items()
        }
