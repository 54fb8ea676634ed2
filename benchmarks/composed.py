"""Training losses as toolkits compose them from auto_LiRPA: bounds of a BoundedModule, attacks on the plain module.

In the manner of CTRAIN: points are attacked with torch's autograd, the highest one counts, one `backward`
differentiates. CTRAIN's own steps do more: it attacks the BoundedModule, of which every evaluation is interpreted,
evaluates the unperturbed and the attacked images for statistics, and bounds both sides. A careful user can leave that
out, and here it is left out; its attacks stop at misclassified images, which is another definition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from certtrain.bounds import Box, margin_spec
from certtrain.bounds.backends import _auto_lirpa_compat as compat
from certtrain.losses import Adversary, Prepared, robust_cross_entropy
from certtrain.losses.adv_ibp import WEIGHTS, mixing_weights
from certtrain.losses.taps import connected
from certtrain.losses.trades import divergence

# What the losses of `benchmarks.losses` have by default, too.
ATTACK = Adversary()
RATIO, CONNECTOR, BETA, TRADES = 0.4, 0.5, 0.5, 6.0
ALPHAS = {"mtl_ibp": 0.01, "cc_ibp": 0.01, "exp_ibp": 0.1}

Losses = Callable[[Tensor], Tensor]
Attack = Callable[[Losses, Box], Tensor]


class Composition:
    """One batch, and a network as both a plain module and modules of bounds.

    Images and boxes are normalised before: of a network that begins with that, auto_LiRPA 0.3 loses a constant, and its
    back-substituted bounds are wrong.

    Args:
        network: A sequence of layers.
        inputs: [batch, *input_shape], normalised.
        labels: [batch].
        box: Around them, normalised.
        behind: The network is split behind so many layers for TAPS.
        attack: See `attack_as_ctrain`; may be set to another one.
    """

    def __init__(self, network: nn.Sequential, inputs: Tensor, labels: Tensor, box: Box, behind: int) -> None:
        self.attack: Attack = attack_as_ctrain
        self.network, self.inputs, self.labels, self.behind, self.box = network, inputs, labels, behind, box
        self.spec = margin_spec(labels, network(inputs).shape[1])
        self._package: Any = compat.load()
        self._bounded = self._module_of(network)

    def _module_of(self, network: nn.Module) -> Any:
        return self._package.BoundedModule(
            network,
            self.inputs,
            {"conv_mode": "patches", "relu": "adaptive", "activation_bound_option": "adaptive"},
            device=self.inputs.device,
        )

    def margins(self, box: Box, method: str = "IBP") -> Tensor:
        """Lower bounds [batch, rows]."""
        return self._bounds(self._bounded, box, method, self.spec, upper=False)[0]

    def _bounds(self, bounded: Any, box: Box, method: str, spec: Tensor | None, upper: bool) -> tuple[Tensor, Tensor]:
        corners = self._package.PerturbationLpNorm(norm=float("inf"), x_L=box.lower, x_U=box.upper)
        x = self._package.BoundedTensor(box.center, corners)
        return bounded.compute_bounds(x=(x,), C=spec, method=method, bound_upper=upper)

    @cached_property
    def _head(self) -> Any:
        return self._module_of(self.network[: self.behind])

    def between(self, box: Box) -> tuple[Tensor, Tensor]:
        """Bounds behind the first layers."""
        return self._bounds(self._head, box, "IBP", None, upper=True)

    def attacked_margins(self, points: Tensor) -> Tensor:
        """Of latent points [batch, rows, *latent]: [batch, rows]."""
        rows = self.spec.flatten(0, 1)
        return (rows * self.network[self.behind :](points.flatten(0, 1))).sum(1).reshape(points.shape[:2])

    def cross_entropy(self, points: Tensor) -> Tensor:
        """[batch]."""
        return F.cross_entropy(self.network(points), self.labels, reduction="none")

    def small(self, center: Tensor) -> Box:
        """SABR's box around a point."""
        radius = RATIO * self.box.radius
        return Box(torch.maximum(center - radius, self.box.lower), torch.minimum(center + radius, self.box.upper))

    @property
    def room(self) -> Box:
        """Where such points may lie."""
        middle, radius = self.box.center, (1 - RATIO) * self.box.radius
        return Box(middle - radius, middle + radius)


def attack_as_ctrain(losses: Losses, box: Box) -> Tensor:
    """Projected gradient ascent from one random start, as its pgd_attack: every point that was reached is asked again.

    The highest of these counts.
    """
    x = box.lower + torch.rand_like(box.lower) * (box.upper - box.lower)
    best, highest = x, torch.full_like(x.flatten(1)[:, 0], -torch.inf)
    for step in range(ATTACK.steps):
        x = x.detach().requires_grad_()
        slope = torch.autograd.grad(losses(x).sum(), x)[0]
        x = _moved_along(x, slope, step, box)
        best, highest = _higher(x, losses(x), best, highest)
    return best.detach()


def attack_once(losses: Losses, box: Box) -> Tensor:
    """The same with no evaluation to spare: what a gradient is taken of says how high the point is, too."""
    x = box.lower + torch.rand_like(box.lower) * (box.upper - box.lower)
    best, highest = x, torch.full_like(x.flatten(1)[:, 0], -torch.inf)
    for step in range(ATTACK.steps):
        x = x.detach().requires_grad_()
        found = losses(x)
        slope = torch.autograd.grad(found.sum(), x)[0]
        best, highest = _higher(x, found, best, highest)
        x = _moved_along(x, slope, step, box)
    with torch.no_grad():
        return _higher(x, losses(x), best, highest)[0].detach()


def _moved_along(x: Tensor, slope: Tensor, step: int, box: Box) -> Tensor:
    size = ATTACK.step_size * (1 - step / ATTACK.steps)
    return (x.detach() + size * box.radius * slope.sign()).clamp(box.lower, box.upper)


def _higher(x: Tensor, found: Tensor, best: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    x, found = x.detach(), found.detach()
    higher = found > highest
    best = torch.where(higher.reshape(-1, *[1] * (x.dim() - 1)), x, best)
    return best, torch.where(higher, found, highest)


def _points(on: Composition) -> Prepared:
    return {"points": on.attack(on.cross_entropy, on.box)}


def _center(on: Composition) -> Prepared:
    return {"center": on.attack(on.cross_entropy, on.room)}


def _moved(on: Composition) -> Prepared:
    with torch.no_grad():
        logits = on.network(on.inputs)
    return {"points": on.attack(lambda x: divergence(logits, on.network(x)), on.box)}


def _places(on: Composition, box: Box) -> Tensor:
    rows = on.spec.shape[1]
    with torch.no_grad():
        lower, upper = (end[:, None].expand(-1, rows, *end.shape[1:]).contiguous() for end in on.between(box))
    # Every wrong class has a point of its own.
    ends = Box(lower.flatten(0, 1), upper.flatten(0, 1))
    found = on.attack(lambda x: -on.attacked_margins(x.reshape(lower.shape)).flatten(), ends).reshape(lower.shape)
    width = upper - lower
    return ((found - lower) / width.clamp(min=1e-12)).clamp(0, 1).where(width > 0, torch.full_like(found, 0.5))


def _staps_places(on: Composition) -> Prepared:
    center = _center(on)["center"]
    return {"center": center, "places": _places(on, on.small(center))}


def nothing(on: Composition) -> Prepared:
    """There is nothing to attack."""
    return {}


# Loss -> what is attacked before it is differentiated, by the names that the native ones have.
PREPARE: Mapping[str, Callable[[Composition], Prepared]] = {
    "robust_ce": nothing,
    "crown_ibp": nothing,
    "pgd": _points,
    "trades": _moved,
    "sabr": _center,
    "mtl_ibp": _points,
    "cc_ibp": _points,
    "exp_ibp": _points,
    "adv_ibp": _points,
    "taps": lambda on: {"places": _places(on, on.box)},
    "staps": _staps_places,
}


def _verified(on: Composition, box: Box | None = None) -> Tensor:
    return robust_cross_entropy(on.margins(on.box if box is None else box))


def _crown_ibp(on: Composition, prepared: Prepared) -> Tensor:
    loose = on.margins(on.box)
    return robust_cross_entropy(BETA * on.margins(on.box, "CROWN-IBP") + (1 - BETA) * loose)


def _trades(on: Composition, prepared: Prepared) -> Tensor:
    logits = on.network(on.inputs)
    natural = F.cross_entropy(logits, on.labels, reduction="none")
    return natural + TRADES * divergence(logits, on.network(prepared["points"]))


def _cc_ibp(on: Composition, prepared: Prepared) -> Tensor:
    alpha = ALPHAS["cc_ibp"]
    attacked = (on.spec @ on.network(prepared["points"])[:, :, None]).squeeze(-1)
    return robust_cross_entropy(alpha * on.margins(on.box) + (1 - alpha) * attacked)


def _mtl_ibp(on: Composition, prepared: Prepared) -> Tensor:
    alpha = ALPHAS["mtl_ibp"]
    return alpha * _verified(on) + (1 - alpha) * on.cross_entropy(prepared["points"])


def _exp_ibp(on: Composition, prepared: Prepared) -> Tensor:
    alpha = ALPHAS["exp_ibp"]
    return (alpha * _verified(on).log() + (1 - alpha) * on.cross_entropy(prepared["points"]).log()).exp()


def mixed_gradient(on: Composition) -> Tensor:
    """Adv-IBP's mixture of two gradients, each taken once, is left in the parameters; the loss."""
    weights = list(on.network.parameters())
    losses = on.cross_entropy(_points(on)["points"]).mean(), _verified(on).mean()
    found = [torch.autograd.grad(loss, weights) for loss in losses]
    factors = mixing_weights(*(torch.cat([g.flatten() for g in own]) for own in found))
    for weight, one, other in zip(weights, *found, strict=True):
        weight.grad = factors[0] * one + factors[1] * other
    return (factors[0] * losses[0] + factors[1] * losses[1]).detach()


def _adv_ibp(on: Composition, prepared: Prepared) -> Tensor:
    adversarial, verified = prepared[WEIGHTS]
    return adversarial * on.cross_entropy(prepared["points"]) + verified * _verified(on)


def _taps(on: Composition, prepared: Prepared) -> Tensor:
    box = on.small(prepared["center"]) if "center" in prepared else on.box
    lower, upper = on.between(box)
    points = connected(lower[:, None], upper[:, None], prepared["places"], CONNECTOR)
    return robust_cross_entropy(on.attacked_margins(points)) * _verified(on, box)


# Loss -> its value for each image.
VALUES: Mapping[str, Callable[[Composition, Prepared], Tensor]] = {
    "robust_ce": lambda on, prepared: _verified(on),
    "crown_ibp": _crown_ibp,
    "pgd": lambda on, prepared: on.cross_entropy(prepared["points"]),
    "trades": _trades,
    "sabr": lambda on, prepared: _verified(on, on.small(prepared["center"])),
    "mtl_ibp": _mtl_ibp,
    "cc_ibp": _cc_ibp,
    "exp_ibp": _exp_ibp,
    "adv_ibp": _adv_ibp,
    "taps": _taps,
    "staps": _taps,
}
