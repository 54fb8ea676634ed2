"""Initial weights of a network, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn


def keep(network: nn.Module) -> None:
    """Every layer keeps what it was made with."""


def shi(network: nn.Module) -> None:
    """Weights of every layer but the last one from N(0, 2π / fan_in²) (Shi et al., NeurIPS 2021).

    With that variance the expected width of an interval neither grows nor shrinks from layer to layer. Biases, batch
    norm and the last layer keep what they were made with, as in the authors' public code.

    Args:
        network: Its weights are drawn anew from torch's global generator, in the order of its parameters.
    """
    weights = [p for p in network.parameters() if p.dim() > 1]
    for weight in weights[:-1]:
        fan_in = weight[0].numel()
        nn.init.normal_(weight, std=math.sqrt(2 * math.pi) / fan_in)


INITIALISATIONS: Mapping[str, Callable[[nn.Module], None]] = {"default": keep, "shi": shi}


def initialise(network: nn.Module, name: str) -> None:
    """Gives a network the initial weights of that name, in place.

    Args:
        network: As its class made it.
        name: A key of `INITIALISATIONS`.
    """
    with torch.no_grad():
        INITIALISATIONS[name](network)
