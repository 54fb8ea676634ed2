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

    It is no bound of the loss over the whole box, except at λ = 1 without shrinkage. See `SmallBox` for the variant.

    Attributes:
        subselection_ratio: λ in (0, 1]: width of the small box as a share of the whole one's.
        relu_shrinkage: Share that crossing ReLUs lose of their upper bounds, in [0, 1], see `ShrunkIntervals`.
        attack: Finds the point.

    Raises:
        ConfigError: If a share is out of range, or the attack leaves the box; from `robust`, if the relaxation has no
            intervals that could be shrunk.
    """

    subselection_ratio: float = 0.4
    relu_shrinkage: float = 0.0
    attack: Adversary = STANDARD

    def __post_init__(self) -> None:
        super().__post_init__()
        self.attack.refuse_factor("sabr")
        SmallBox(self.subselection_ratio, self.attack, self.relu_shrinkage)  # which checks the shares

    @property
    def certifies(self) -> bool:
        """See `Loss`: a small box is not the whole one, and shrunk intervals hold for none."""
        return self.subselection_ratio == 1 and self.relu_shrinkage == 0

    @property
    def _small(self) -> SmallBox:
        return SmallBox(self.subselection_ratio, self.attack, self.relu_shrinkage)

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`."""
        return {"center": self._small.center(problem, params, generation)}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`."""
        return robust_cross_entropy(self._small.around(problem, prepared["center"]).lower_margins(params))
