"""What expressive losses share (De Palma et al., ICLR 2024): one end is adversarial training, the other verified."""

from __future__ import annotations

from dataclasses import dataclass

from certtrain.losses.adversary import STANDARD, Adversary
from certtrain.losses.base import NOTHING, Prepared
from certtrain.losses.mixed import Mixed
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params


@dataclass(frozen=True, kw_only=True)
class Expressive(Mixed):
    """Between the adversarial loss and the verified one, by the configured relaxation.

    Losses are combined image by image, as the publication defines them; its public code combines the means of a batch,
    which is the same for MTL-IBP. It also takes batch norm's statistics of the attacked points, where all losses here
    take those of the clean ones.

    Attributes:
        alpha: α in [0, 1], from adversarial (0) to verified (1).
        attack: Finds the points; `eps_factor` is what the publication calls attack_eps_factor.

    Raises:
        ConfigError: If α is out of range.
    """

    alpha: float
    attack: Adversary = STANDARD

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, high=1.0)

    @property
    def certifies(self) -> bool:
        """See `Loss`: below 1 the attack counts, and mostly for more."""
        return self.alpha == 1

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`; at α = 1 nothing is attacked."""
        return {"points": self.attack.misclassify(problem, params, generation)} if self.alpha < 1 else NOTHING
