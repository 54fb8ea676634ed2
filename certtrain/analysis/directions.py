"""Directions in the space of weights, of comparable length."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.gradients import LossFunction
from certtrain.gradients.backprop import differentiate
from certtrain.gradients.noise import GaussianNoise
from certtrain.networks.graph import Params


def length(direction: Params) -> float:
    """Euclidean length over all parameters."""
    return float(torch.stack([d.square().sum() for d in direction.values()]).sum().sqrt())


def inner(one: Params, other: Params) -> float:
    """Inner product over all parameters."""
    return float(torch.stack([(d * other[name]).sum() for name, d in one.items()]).sum())


def scaled(direction: Params, factor: float) -> Params:
    """Every weight times a number."""
    return {name: factor * d for name, d in direction.items()}


def _filters(drawn: Tensor, weights: Tensor) -> Tensor:
    """Every output's weights (a row of a matrix, a kernel) as long as the network's own; vectors do not move."""
    if weights.dim() < 2:
        return torch.zeros_like(weights)
    own, new = (torch.linalg.vector_norm(x.flatten(1), dim=1) for x in (weights, drawn))
    return drawn * (own / new).reshape(-1, *[1] * (weights.dim() - 1))


def _layers(drawn: Tensor, weights: Tensor) -> Tensor:
    """Every parameter, vectors too, as long as the network's own."""
    return drawn * (torch.linalg.vector_norm(weights) / torch.linalg.vector_norm(drawn))


# Normalisation -> (what was drawn, weights) -> a direction as long as the weights.
NORMALISATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"filter": _filters, "layer": _layers}


def random_direction(params: Params, normalisation: str, seed: int, number: int) -> Params:
    """A normal direction, normalised filter by filter (Li et al., NeurIPS 2018) or layer by layer.

    A step of t along it moves every filter (or layer) by t times its own length. By filters, biases and other vectors
    stay, as in the publication.

    Args:
        params: The weights θ.
        normalisation: One of `NORMALISATIONS`.
        seed: Of the draw.
        number: Which direction: each is a draw of its own.

    Raises:
        ConfigError: If there is no such normalisation.
    """
    if normalisation not in NORMALISATIONS:
        raise ConfigError(f"normalisation must be one of {', '.join(NORMALISATIONS)}, got {normalisation}")
    drawn = GaussianNoise(seed, 1.0).sample(params, number, range(1))
    return {name: NORMALISATIONS[normalisation](drawn[name][0], p) for name, p in params.items()}


def gradient_direction(loss: LossFunction, params: Params, as_long_as: float) -> Params:
    """∇L(θ), rescaled.

    Args:
        loss: L.
        params: The weights θ.
        as_long_as: Length of the result.

    Raises:
        ConfigError: If the gradient is zero or not finite.
    """
    _, gradient = differentiate(loss, params)
    norm = length(gradient)
    if not 0 < norm < float("inf"):
        raise ConfigError(f"the loss has no gradient direction at these weights: its gradient has the norm {norm}")
    return scaled(gradient, as_long_as / norm)


def orthogonal(direction: Params, to: Params) -> Params:
    """The part of a direction that is orthogonal to another one, as long as the whole was."""
    factor = inner(direction, to) / inner(to, to)
    rest = {name: d - factor * to[name] for name, d in direction.items()}
    return scaled(rest, length(direction) / length(rest))
