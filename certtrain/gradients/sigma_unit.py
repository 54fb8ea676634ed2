"""The unit of sigma: that of the weights, or their size, on which smoothing acts whatever the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from certtrain.gradients.base import EstimationError
from certtrain.gradients.statistics import squared_norm
from certtrain.networks.graph import Params


def root_mean_square(params: Params) -> float:
    """Of the weights, ‖θ‖/√d."""
    return math.sqrt(squared_norm(params) / max(1, sum(p.numel() for p in params.values())))


def absolute(size: float) -> float:
    """Sigma is a standard deviation as it is."""
    return 1.0


def relative(size: float) -> float:
    """Sigma is the length of the noise over that of the weights, σ√d/‖θ‖, and follows them over the generations.

    Raises:
        EstimationError: If the weights have no size.
    """
    if not 0 < size < math.inf:
        raise EstimationError(f"the weights' root mean square is {size}: sigma_unit=relative needs a positive one")
    return size


# Name -> (root mean square of the weights -> the standard deviation that sigma = 1 stands for).
UNITS: Mapping[str, Callable[[float], float]] = {"absolute": absolute, "relative": relative}


@dataclass(frozen=True)
class Deviation:
    """The standard deviation of the weight noise of one generation.

    Attributes:
        told: Sigma as it is configured, scheduled or learned.
        unit: What it is a multiple of.
        size: Of the weights.
    """

    told: float
    unit: float
    size: float

    @classmethod
    def at(cls, params: Params, told: float, unit: str) -> Deviation:
        """Sigma at given weights; the unit is one of `UNITS`."""
        size = root_mean_square(params)
        return cls(told, UNITS[unit](size), size)

    @property
    def sigma(self) -> float:
        """In the unit of the weights."""
        return self.told * self.unit

    @property
    def relative(self) -> float:
        """Length of the noise over that of the weights; infinite where these are all zero."""
        return self.sigma / self.size if self.size > 0 else math.inf
