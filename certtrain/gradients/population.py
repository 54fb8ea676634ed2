"""Losses of a population of parameter vectors."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.gradients.base import LossFunction
from certtrain.networks.graph import Params

Strategy = Literal["vmap", "loop"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)


def evaluate(loss: LossFunction, params: Params, noise: Params, *, strategy: str = "vmap", chunk: int = 16) -> Tensor:
    """Losses [members] at `params + noise[i]`, without gradients.

    Args:
        loss: Maps parameters to a scalar.
        params: Name -> centre.
        noise: Name -> [members, *shape]; one row per member.
        strategy: "vmap" evaluates `chunk` members in one vectorised call, which wins where networks are small and calls
            dominate; "loop" takes one after the other, which wins where matrix products are large.
        chunk: Members per vectorised call: bounds the memory, never changes a result beyond rounding.

    Raises:
        ConfigError: If there is no such strategy or the chunk is not positive.
    """
    if strategy not in STRATEGIES or chunk < 1:
        raise ConfigError(
            f"population strategy must be one of {', '.join(STRATEGIES)} with a chunk >= 1, got {strategy}, {chunk}"
        )
    members = len(next(iter(noise.values())))
    with torch.no_grad():
        if strategy == "loop":
            return torch.stack([loss({k: p + noise[k][i] for k, p in params.items()}) for i in range(members)])
        vectorised = torch.func.vmap(loss)
        return torch.cat(
            [vectorised({k: p + noise[k][i : i + chunk] for k, p in params.items()}) for i in range(0, members, chunk)]
        )
