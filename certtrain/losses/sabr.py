"""SABR (Müller et al., ICLR 2023): bounds of small boxes around attacked points."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from certtrain.losses.adversary import STANDARD, Adversary
from certtrain.losses.base import Prepared
from certtrain.losses.mixed import Mixed
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.losses.small_box import SmallBox
from certtrain.networks.graph import Params


@dataclass(frozen=True, kw_only=True)
class Sabr(Mixed):
    """Robust cross-entropy over a small box around an attacked point, by the configured relaxation.

    It is no bound of the loss over the whole box, except at λ = 1. See `SmallBox` for the variant.

    Attributes:
        subselection_ratio: λ in (0, 1]: width of the small box as a share of the whole one's.
        attack: Finds the point.

    Raises:
        ConfigError: If λ is out of range, or the attack leaves the box.
    """

    subselection_ratio: float = 0.4
    attack: Adversary = STANDARD

    def __post_init__(self) -> None:
        super().__post_init__()
        self.attack.refuse_factor("sabr")
        SmallBox(self.subselection_ratio, self.attack)  # which checks the ratio

    @property
    def certifies(self) -> bool:
        """See `Loss`: a small box is not the whole one."""
        return self.subselection_ratio == 1

    @property
    def _small(self) -> SmallBox:
        return SmallBox(self.subselection_ratio, self.attack)

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`."""
        return {"center": self._small.center(problem, params, generation)}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`."""
        return robust_cross_entropy(self._small.around(problem, prepared["center"]).lower_margins(params))
