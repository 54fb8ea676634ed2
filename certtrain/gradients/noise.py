"""Weight noise as a pure function of (seed, generation, pair).

Counter-based generation (`philox`) makes every pair's noise its own stream: it does not depend on which process, chunk
or device asks for it, and it can be generated again instead of being stored. It is drawn on the device of the weights;
what devices may differ in is the last digit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from certtrain.gradients import philox
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class Noise(ABC):
    """Noise of mean 0 and variance σ² in every weight, uncorrelated between weights.

    Attributes:
        seed: Seed of the run.
        sigma: Standard deviation, in the unit of the weights.
    """

    seed: int
    sigma: float

    @property
    @abstractmethod
    def gaussian(self) -> bool:
        """Whether weights are independent and normal, as a learned sigma needs it."""

    @abstractmethod
    def sample(self, params: Params, generation: int, pairs: range) -> Params:
        """Noise of some pairs: name -> [len(pairs), *parameter shape], in the parameter's dtype and device."""

    def normal(self, numbers: int, params: Params, generation: int, pairs: range) -> Tensor:
        """Standard normal numbers [pairs, numbers], float32, on the weights' device; every pair has its own stream."""
        return philox.normal(self.seed, generation, pairs, numbers, next(iter(params.values())).device)


# (seed, sigma) -> noise; sigma may be another one in every generation.
NoiseFamily = Callable[[int, float], Noise]


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """ε ~ N(0, σ² I) over all parameters, which take their part of one long vector in the order of `params`."""

    @property
    def gaussian(self) -> bool:
        """By definition."""
        return True

    def sample(self, params: Params, generation: int, pairs: range) -> Params:
        """See `Noise.sample`."""
        vector = self.normal(sum(p.numel() for p in params.values()), params, generation, pairs).mul_(self.sigma)
        parts = vector.split([p.numel() for p in params.values()], dim=1)
        return {
            name: part.reshape(len(pairs), *p.shape).to(dtype=p.dtype, device=p.device)
            for (name, p), part in zip(params.items(), parts, strict=True)
        }
