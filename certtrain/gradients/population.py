"""Losses of a population of parameter vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.gradients.base import LossFunction
from certtrain.gradients.members import Members
from certtrain.gradients.strategy import WAYS, fastest

STRATEGIES = (*WAYS, "auto")


def evaluate(loss: LossFunction, members: Members, *, strategy: str = "vmap", chunk: int = 64) -> Tensor:
    """Losses [members], without gradients.

    Args:
        loss: Maps parameters to a scalar.
        members: Whose; made one by one, or chunk by chunk.
        strategy: "vmap" evaluates `chunk` members in one vectorised call, which wins where networks are small and calls
            dominate; "loop" takes one after the other, which wins where matrix products are large or where a single
            member can skip work; "auto" times both first, in every call: see `GradientEstimator.choose` for doing so
            once.
        chunk: Members per vectorised call: bounds the memory, never changes a result beyond rounding.

    Raises:
        ConfigError: If there is no such strategy or the chunk is not positive.
    """
    if strategy not in STRATEGIES or chunk < 1:
        raise ConfigError(
            f"population strategy must be one of {', '.join(STRATEGIES)} with a chunk >= 1, got {strategy}, {chunk}"
        )
    if strategy == "auto":
        strategy = fastest(loss, members, chunk).strategy
    with torch.no_grad():
        return WAYS[strategy](loss, members, chunk)
