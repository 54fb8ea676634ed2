"""Fitness shaping: what of a population's losses enters its gradient.

Shaping sees the losses of the whole population at once, gathered from all processes, so that it does not depend on how
they are distributed. Low stays low: shaped losses are minimised like raw ones. Only `raw` estimates ∇L_σ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def raw(losses: Tensor) -> Tensor:
    """The losses themselves."""
    return losses


def centered_ranks(losses: Tensor) -> Tensor:
    """Ranks, mapped to [-1/2, 1/2]; equal losses share the mean of their ranks (Salimans et al., arXiv 1703.03864)."""
    _, position, counts = losses.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0) - 1
    mean_rank = last - (counts - 1) / 2
    return (mean_rank[position] / max(1, losses.numel() - 1) - 0.5).to(losses.dtype)


def normalized(losses: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1; zero where all losses are equal."""
    centred = losses - losses.mean()
    spread = losses.std(correction=0)
    return torch.where(spread > 0, centred / spread, torch.zeros_like(losses))


# Losses [members], all finite -> shaped losses [members].
SHAPINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "raw": raw,
    "centered_ranks": centered_ranks,
    "normalized": normalized,
}


def shape(name: str, losses: Tensor, finite: Tensor) -> Tensor:
    """Shaped losses [2, pairs] of antithetic pairs; dropped pairs take no part and become zero.

    Args:
        name: One of `SHAPINGS`.
        losses: [2, pairs], both members of every pair.
        finite: [pairs], which pairs take part.
    """
    shaped = torch.zeros_like(losses)
    shaped[:, finite] = SHAPINGS[name](losses[:, finite].reshape(-1)).reshape(2, -1)
    return shaped
