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
        attack: Finds the point, and then lowers margins in the box between the parts.

    Raises:
        ConfigError: If λ is out of range; and see `Taps`.
    """

    subselection_ratio: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        SmallBox(self.subselection_ratio, self.attack)  # which checks the ratio

    @property
    def _small(self) -> SmallBox:
        return SmallBox(self.subselection_ratio, self.attack)

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`."""
        center = self._small.center(problem, params, generation)
        return {"center": center, "places": self._attack(self._small.around(problem, center), params, generation)}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`."""
        return self._product(self._small.around(problem, prepared["center"]), params, prepared["places"])
