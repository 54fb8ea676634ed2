"""TRADES (Zhang et al., ICML 2019): cross-entropy, and how far an attack can move the prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from certtrain.losses.adversary import STANDARD, Adversary
from certtrain.losses.base import Prepared
from certtrain.losses.mixed import Mixed
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params


def divergence(logits: Tensor, moved: Tensor) -> Float[Tensor, " batch"]:
    """KL(softmax(logits) ‖ softmax(moved)) of each image, both [batch, classes]; also where a probability vanishes."""
    before, after = F.log_softmax(logits, 1), F.log_softmax(moved, 1)
    return (before.exp() * (before - after)).sum(1)


@dataclass(frozen=True, kw_only=True)
class Trades(Mixed):
    """Cross-entropy + weight · KL(prediction ‖ prediction at an attacked point).

    The attack maximises the divergence. It starts anywhere in the ball; published, next to the image.

    Attributes:
        weight: Of the divergence (published as β or 1/λ).
        attack: Finds the points.

    Raises:
        ConfigError: If the weight is negative or no number.
    """

    weight: float = 6.0
    attack: Adversary = STANDARD

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("weight", self.weight)

    @property
    def certifies(self) -> bool:
        """See `Loss`: nothing is bounded."""
        return False

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`."""
        outputs = problem.fixed(params)
        with torch.no_grad():
            logits = outputs(problem.inputs)

        def moved(points: Tensor, images: Tensor) -> Tensor:
            return divergence(logits[images], outputs(points))

        box = problem.ball(self.attack.eps_factor)
        return {"points": self.attack.highest(moved, box, problem.keys(generation))}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`."""
        logits = problem.logits(params)
        natural = F.cross_entropy(logits, problem.labels, reduction="none")
        return natural + self.weight * divergence(logits, problem.evaluate(params, prepared["points"]))
