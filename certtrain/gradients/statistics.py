"""How good an estimate is, from the parts that it is the mean of."""

from __future__ import annotations

import math

import torch

from certtrain.networks.graph import Params


def squared_norm(gradient: Params) -> float:
    """|g|² over all parameters."""
    return float(torch.stack([g.square().sum() for g in gradient.values()]).sum())


def signal_to_noise(mean_square: float, squares: float, count: int) -> float:
    """Signal-to-noise ratio |g|² / trace(C) of the mean g of n independent contributions c_i.

    C is the estimated covariance of g: trace(C) = (1/n Σ_i |c_i|² - |g|²) / (n-1). Noise alone gives about 1. NaN for a
    single contribution, infinity where all agree.

    Args:
        mean_square: |g|².
        squares: Σ_i |c_i|².
        count: n.
    """
    if count < 2:
        return math.nan
    trace = (squares / count - mean_square) / (count - 1)
    return mean_square / trace if trace > 0 else math.inf
