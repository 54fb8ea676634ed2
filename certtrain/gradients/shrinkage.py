"""How much of an estimate is kept, where it is known how noisy it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping


def none(square: float, trace: float) -> float:
    """All of it: what was unbiased stays so."""
    return 1.0


def james_stein(square: float, trace: float) -> float:
    """The positive part of 1 - trace(C) / |c|² (James and Stein, 1961; Baranchik, 1970).

    Where noise is all there is, nothing is kept; where there is little, nearly everything. Biased towards zero, but of
    smaller mean squared error than the whole. Where the covariance is not known, everything is kept.
    """
    if not math.isfinite(trace):
        return 1.0
    return max(0.0, 1.0 - trace / square) if square > 0 else 0.0


# (|c|², trace of its estimated covariance or NaN) -> the factor by which c is multiplied.
SHRINKAGES: Mapping[str, Callable[[float, float], float]] = {"none": none, "james_stein": james_stein}
