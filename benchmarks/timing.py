"""Times of calls that take turns, so that whatever else the machine does strikes all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from benchmarks.plans import Limits

Call = Callable[[], Any]
# Seconds that one timing should take at least: shorter calls are repeated within it.
RESOLUTION = 0.01


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of several measurements of one thing."""

    median: float
    lower_quartile: float
    upper_quartile: float
    runs: int

    @staticmethod
    def of(numbers: Sequence[float]) -> Spread:
        """Of at least one number."""
        if len(numbers) == 1:
            return Spread(numbers[0], numbers[0], numbers[0], 1)
        low, middle, high = statistics.quantiles(numbers, n=4, method="inclusive")
        return Spread(middle, low, high, len(numbers))


@dataclass(frozen=True)
class Comparison:
    """Seconds of the native call and of auto_LiRPA's, and the ratios of their pairs."""

    native: Spread
    auto_lirpa: Spread
    ratio: Spread

    @staticmethod
    def of(native: Sequence[float], auto_lirpa: Sequence[float]) -> Comparison:
        """Of timings in the order in which they alternated."""
        ratios = [b / a for a, b in zip(native, auto_lirpa, strict=True)]
        return Comparison(Spread.of(native), Spread.of(auto_lirpa), Spread.of(ratios))


def alternate(calls: Sequence[Call], limits: Limits) -> list[list[float]]:
    """Seconds per call, for each of the calls; after a warm-up of each, they run in turns."""
    repeats = [_warm_up(call, limits) for call in calls]
    found: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    while len(found[0]) < limits.least or (
        len(found[0]) < limits.most and time.perf_counter() - start < limits.seconds
    ):
        for call, repeat, own in zip(calls, repeats, found, strict=True):
            own.append(_seconds(call, repeat))
    return found


def compare(native: Call, auto_lirpa: Call, limits: Limits) -> Comparison:
    """Alternates the two."""
    return Comparison.of(*alternate([native, auto_lirpa], limits))


def _warm_up(call: Call, limits: Limits) -> int:
    """Calls until lazy work is done; how many calls make one timing."""
    first = _seconds(call, 1)
    # The first one may have traced a network: only a second one tells how long a call takes.
    usual = _seconds(call, 1) if first < limits.seconds else first
    return max(1, ceil(RESOLUTION / usual))


def _seconds(call: Call, repeat: int) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat
