"""How much is kept of what a population adds to a guess at the gradient, where it is known how noisy that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping


def none(square: float, trace: float) -> float:
    """All of it: what was unbiased stays so."""
    return 1.0


def james_stein(square: float, trace: float) -> float:
    """The positive part of 1 - trace(C) / |c|² (James and Stein, 1961; Baranchik, 1970).

    Biased towards the guess, for a smaller mean squared error where the noise is spread over many directions. With n
    pairs in d dimensions about n / (n + d) of a correction is kept, however much of the gradient it is: with few pairs
    the estimate is nearly the guess. Where the covariance is not known, nothing is kept.
    """
    if not math.isfinite(trace) or square <= 0:
        return 0.0
    return max(0.0, 1.0 - trace / square)


# (|c|², trace of its estimated covariance or NaN) -> the factor by which the correction c is multiplied.
SHRINKAGES: Mapping[str, Callable[[float, float], float]] = {"none": none, "james_stein": james_stein}
