"""How much is kept of what a population adds to a guess at the gradient, where it is known how noisy that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

# Parameter name -> |c|², and the trace of the correction's estimated covariance, NaN where that is not known.
Numbers = Mapping[str, float]


def none(squares: Numbers, traces: Numbers) -> dict[str, float]:
    """All of it: what was unbiased stays so."""
    return dict.fromkeys(squares, 1.0)


def james_stein(squares: Numbers, traces: Numbers) -> dict[str, float]:
    """The positive part of 1 - trace(C) / |c|², one factor for all (James and Stein, 1961; Baranchik, 1970).

    Biased towards the guess, for a smaller mean squared error where the noise is spread over many directions. With n
    pairs in d dimensions about n / (n + d) of a correction is kept, however much of the gradient it is: with few pairs
    the estimate is nearly the guess. Where the covariance is not known, nothing is kept.
    """
    return dict.fromkeys(squares, _positive_part(sum(squares.values()), sum(traces.values())))


def james_stein_layers(squares: Numbers, traces: Numbers) -> dict[str, float]:
    """The same with a factor for each parameter tensor: what is kept differs between layers where corrections do.

    Each factor follows from fewer numbers and scatters more.
    """
    return {name: _positive_part(squares[name], traces[name]) for name in squares}


def _positive_part(square: float, trace: float) -> float:
    if not math.isfinite(trace) or square <= 0:
        return 0.0
    return max(0.0, 1.0 - trace / square)


# Name -> (|c|² of each parameter, trace of its covariance) -> the factors by which the parts of c are multiplied.
SHRINKAGES: Mapping[str, Callable[[Numbers, Numbers], dict[str, float]]] = {
    "none": none,
    "james_stein": james_stein,
    "james_stein_layers": james_stein_layers,
}
