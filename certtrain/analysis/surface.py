"""The loss on points of a line or a plane in the space of weights, as it is and smoothed.

    L_σ(θ) = E L(θ + ε),  ε ~ N(0, σ² I),  is estimated by  1/n Σ_i (L(θ + ε_i) + L(θ - ε_i)) / 2.

All points share the noise ε_i (common random numbers), so that differences between points are less noisy than each is.
An estimate by n pairs is itself no smooth function: a jump of L stays in it n pairs times smaller and as many times as
often. Its standard error says how far it may be from L_σ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.analysis.subject import CHUNK
from certtrain.gradients import LossFunction, evaluate
from certtrain.gradients.members import Antithetic, Drawn
from certtrain.gradients.noise import GaussianNoise
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class Values:
    """A loss at some points.

    Attributes:
        mean: [points].
        error: [points], the standard error; zero where nothing is random, NaN from one pair.
    """

    mean: Float[Tensor, " points"]
    error: Float[Tensor, " points"]


@dataclass(frozen=True)
class Plane:
    """Points θ + Σ_j c_j v_j.

    Attributes:
        params: θ.
        directions: The v_j.
        coordinates: The c_j, [points, directions].
    """

    params: Params
    directions: Sequence[Params]
    coordinates: Float[Tensor, "points directions"]

    def __len__(self) -> int:
        return len(self.coordinates)

    def offsets(self, points: slice) -> Params:
        """From θ to some of the points: name -> [points, *shape]."""
        c = self.coordinates[points]
        return {
            name: torch.tensordot(c.to(p), torch.stack([v[name] for v in self.directions]).to(p), dims=1)
            for name, p in self.params.items()
        }


def values(loss: LossFunction, plane: Plane, strategy: str) -> Values:
    """The loss itself.

    Args:
        loss: L.
        plane: Where.
        strategy: See `gradients.evaluate`.
    """
    parts = [
        evaluate(loss, Drawn(plane.params, plane.offsets(slice(i, i + CHUNK))), strategy=strategy, chunk=CHUNK)
        for i in range(0, len(plane), CHUNK)
    ]
    mean = torch.cat(parts)
    return Values(mean, torch.zeros_like(mean))


def smoothed(loss: LossFunction, plane: Plane, sigma: float, pairs: int, seed: int, strategy: str) -> Values:
    """The smoothed loss.

    Args:
        loss: L.
        plane: Where.
        sigma: Of the noise, in the unit of the weights.
        pairs: n.
        seed: Of the noise.
        strategy: See `gradients.evaluate`.
    """
    found = torch.stack([_pair(loss, plane, sigma, pair, seed, strategy) for pair in range(pairs)])
    error = found.std(0) / math.sqrt(pairs) if pairs > 1 else torch.full_like(found[0], torch.nan)
    return Values(found.mean(0), error)


def _pair(loss: LossFunction, plane: Plane, sigma: float, pair: int, seed: int, strategy: str) -> Tensor:
    """The mean of one pair at every point, [points]."""
    members = Antithetic(plane.params, GaussianNoise(seed, sigma).sample(plane.params, 0, range(pair, pair + 1)))
    moved = [replace(plane, params=members.one(member)) for member in range(len(members))]
    return torch.stack([values(loss, one, strategy).mean for one in moved]).mean(0)
