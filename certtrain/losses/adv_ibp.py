"""Adv-IBP (Fan and Li, 2021): the gradients of the adversarial and of the verified loss, mixed by norms and angle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.losses.adversary import STANDARD, Adversary
from certtrain.losses.base import Prepared
from certtrain.losses.mixed import Mixed
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.networks.graph import Params

WEIGHTS = "weights"


def mixing_weights(adversarial: Float[Tensor, " size"], verified: Float[Tensor, " size"]) -> Float[Tensor, "2"]:
    """Weights of two gradients in their mixture.

    Where the angle between them is less than 90 degrees, the mixture lies on its bisector, as long as their projections
    on it are on average. Otherwise the adversarial one loses what it has along the verified one, so that it does not
    make the verified loss larger. Where one vanishes, both weigh 1.
    """
    dot, one, other = adversarial @ verified, adversarial.norm(), verified.norm()
    if not (one > 0 and other > 0):  # nor where one is no number, which training reports
        return torch.ones_like(torch.stack([one, other]))
    if dot <= 0:
        return torch.stack([torch.ones_like(dot), -dot / other.square()])
    squared_bisector = 2 + 2 * dot / (one * other)
    length = 0.5 / squared_bisector * (one + other + dot / one + dot / other)
    return torch.stack([length / one, length / other])


@dataclass(frozen=True, kw_only=True)
class AdvIbp(Mixed):
    """a · cross-entropy at attacked points + v · robust cross-entropy, where a and v mix their gradients.

    The weights follow from both gradients of the whole batch at the centre, once per generation (`mixing_weights`), and
    are constants in derivatives: the gradient of this loss there is the published mixture, and a population reads the
    values of one loss. The authors' public code (JmfanBU/AdvIBP) also averages over steps what the weights are made of,
    projects the other gradient while the attack is far from converged, and trains layer after layer; not here.

    Attributes:
        attack: Finds the points.
    """

    attack: Adversary = STANDARD

    @property
    def divisible(self) -> bool:
        """See `Loss`: the weights are those of the whole batch."""
        return False

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`."""
        points = self.attack.misclassify(problem, params, generation)
        tensors = problem.graph.tensors
        with torch.enable_grad():
            # Statistics of batch norm are given here: the weights are numbers, not derivatives.
            leaves = {n: p.detach().requires_grad_() for n, p in params.items() if n in tensors and not tensors[n][1]}
            everything = {**params, **leaves}
            losses = (
                problem.cross_entropy(everything, points).mean(),
                robust_cross_entropy(problem.lower_margins(everything)).mean(),
            )
            gradients = [_gradient(loss, list(leaves.values())) for loss in losses]
        return {"points": points, WEIGHTS: mixing_weights(*gradients)}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`."""
        adversarial, verified = prepared[WEIGHTS]
        return adversarial * problem.cross_entropy(params, prepared["points"]) + verified * robust_cross_entropy(
            problem.lower_margins(params)
        )


def _gradient(loss: Tensor, leaves: Sequence[Tensor]) -> Float[Tensor, " size"]:
    """Of a scalar in all parameters, as one vector."""
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    parts = (torch.zeros_like(p) if g is None else g for p, g in zip(leaves, found, strict=True))
    return torch.cat([part.flatten() for part in parts])
