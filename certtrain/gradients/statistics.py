"""How good an estimate is, from the parts that it is the mean of."""

from __future__ import annotations

import math

import torch

from certtrain.networks.graph import Params

# Of squares in double precision: a smaller part of one is no noise.
ROUNDING = 1e-24


def squared_norms(gradient: Params) -> dict[str, float]:
    """|g|² of every parameter."""
    return dict(zip(gradient, torch.stack([g.square().sum() for g in gradient.values()]).tolist(), strict=True))


def squared_norm(gradient: Params) -> float:
    """|g|² over all parameters."""
    return float(torch.stack([g.square().sum() for g in gradient.values()]).sum())


def trace_of_covariance(mean_square: float, squares: float, count: int) -> float:
    """Trace of the estimated covariance of the mean g of n independent contributions c_i.

    It is (1/n Σ_i |c_i|² - |g|²) / (n-1); NaN for a single contribution.

    Args:
        mean_square: |g|².
        squares: Σ_i |c_i|².
        count: n.
    """
    return max(0.0, squares / count - mean_square) / (count - 1) if count > 1 else math.nan


def signal_to_noise(mean_square: float, trace: float) -> float:
    """Signal-to-noise ratio |g|² / trace(C) of an estimate g with covariance C.

    Noise alone gives about 1. NaN where the covariance is not known, infinity where it is zero up to rounding.
    """
    return math.inf if trace <= ROUNDING * mean_square else mean_square / trace
