"""STAPS (Mao et al., NeurIPS 2023): TAPS in the small boxes of SABR."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import Prepared
from certtrain.losses.problem import Problem
from certtrain.losses.small_box import SmallBox
from certtrain.losses.taps import Taps
from certtrain.networks.graph import Params


@dataclass(frozen=True, kw_only=True)
class Staps(Taps):
    """TAPS, both factors of it, over a small box around an attacked point instead of the whole one.

    Attributes:
        subselection_ratio: λ in (0, 1], see `SmallBox`; 1 is TAPS.
        relu_shrinkage: Share that crossing ReLUs lose of their upper bounds, in [0, 1], see `ShrunkIntervals`.
        attack: Finds the point, and then lowers margins in the box between the parts.

    Raises:
        ConfigError: If a share is out of range; and see `Taps`; from `prepare`, if the relaxation has no intervals that
            could be shrunk.
    """

    subselection_ratio: float = 0.4
    relu_shrinkage: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        SmallBox(self.subselection_ratio, self.attack, self.relu_shrinkage)  # which checks the shares

    @property
    def _small(self) -> SmallBox:
        return SmallBox(self.subselection_ratio, self.attack, self.relu_shrinkage)

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`."""
        center = self._small.center(problem, params, generation)
        return {"center": center, "places": self._attack(self._small.around(problem, center), params, generation)}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`."""
        return self._product(self._small.around(problem, prepared["center"]), params, prepared["places"])
