"""TAPS (Mao et al., NeurIPS 2023): bounds through the first layers, attacks through the last ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.bounds.base import Box
from certtrain.bounds.relaxation.ibp import IBP
from certtrain.errors import ConfigError
from certtrain.losses.adversary import STANDARD, Adversary
from certtrain.losses.base import Prepared
from certtrain.losses.mixed import Mixed
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.networks.graph import Params
from certtrain.networks.ops import Activation
from certtrain.networks.split import Halves, place_of, split


def connected(
    lower: Float[Tensor, "batch 1 *latent"],
    upper: Float[Tensor, "batch 1 *latent"],
    place: Float[Tensor, "batch rows *latent"],
    connector: float,
) -> Float[Tensor, "batch rows *latent"]:
    """Points of a box that move with it, with the derivatives of TAPS' rectified linear gradient connector.

    Args:
        lower: Of the box.
        upper: Of the box.
        place: Where the points are, from 0 (lower) to 1 (upper).
        connector: c in (0, 1]: the derivative to an end goes linearly from 1 there to 0 at the share c of the width.
            At 1 these are the derivatives of the value.
    """
    points = lower + place * (upper - lower)
    if connector == 1:
        return points
    to_lower = (1 - place / connector).clamp(min=0)
    to_upper = (1 - (1 - place) / connector).clamp(min=0)
    moved = to_lower * (lower - lower.detach()) + to_upper * (upper - upper.detach())
    return points.detach() + moved


def scaled(loss: Tensor, factor: float) -> Tensor:
    """The same value, with so many times its derivative."""
    return loss if factor == 1 else factor * loss + (1 - factor) * loss.detach()


@dataclass(frozen=True, kw_only=True)
class Taps(Mixed):
    """L_TAPS · robust cross-entropy: where bounds are loose, what an attack finds behind the first layers counts.

    The configured relaxation bounds the first layers. In their box every wrong class is attacked through the last
    layers, and L_TAPS is the robust cross-entropy of the margins found. The robust cross-entropy is that of the whole
    network by the same relaxation. The two are multiplied image by image; the public code multiplies the means of a
    batch. With other values than 1 the connector and the scale give other derivatives than the value has, as published.
    Members of a population are attacked at the centre's places in their own boxes.

    Attributes:
        split: Behind which layer the network is split, see `networks.split.place_of`: an activation, -2 leaving one
            activation to the last layers.
        connector: c of the gradient connector, see `connected`; published 0.5.
        scale: What derivatives of L_TAPS are multiplied with (published as taps_grad_scale, between 1 and 5).
        attack: Of the box between the parts.

    Raises:
        ConfigError: If a number is out of range; from `prepare`, if the network cannot be split there.
    """

    split: str | int = -2
    connector: float = 0.5
    scale: float = 1.0
    attack: Adversary = STANDARD

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("connector", self.connector, high=1.0, above=True)
        check_number("scale", self.scale, above=True)
        self.attack.refuse_factor("taps and staps")
        if type(self.split) not in (int, str):
            raise ConfigError(f"loss.split must be a name of a layer or a whole number, got {self.split!r}")

    @property
    def differentiates_its_value(self) -> bool:
        """See `Loss`."""
        return self.connector == 1 and self.scale == 1

    @property
    def certifies(self) -> bool:
        """See `Loss`: what an attack finds counts as much as what is bounded."""
        return False

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`."""
        return {"places": self._attack(problem, params, generation)}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`."""
        return self._product(problem, params, prepared["places"])

    def _product(self, problem: Problem, params: Params, places: Tensor) -> Float[Tensor, " batch"]:
        """The loss, with the whole problem or another box in its place."""
        halves = self._halves(problem)
        (lower, upper), certified = self._between_and_behind(halves, problem, params)
        points = connected(lower[:, None], upper[:, None], places, self.connector)
        outputs = problem.evaluate(params, points.flatten(0, 1), halves.tail)
        margins = (problem.spec.flatten(0, 1) * outputs).sum(1).reshape(places.shape[:2])
        attacked = scaled(robust_cross_entropy(margins), self.scale)
        return attacked * robust_cross_entropy(certified)

    def _between_and_behind(
        self, halves: Halves, problem: Problem, params: Params
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Bounds between the parts, see `_between`, and of the margins; intervals reach these through those."""
        at = place_of(problem.graph, self.split)
        if not isinstance(problem.relaxation, IBP) or not isinstance(problem.graph.ops[at], Activation):
            return _between(halves, problem, params), problem.lower_margins(params)
        bounds, latent = problem.relaxation.bound_with(problem.graph, params, problem.box, problem.spec, at)
        return (latent.lower, latent.upper), bounds.lower

    def _attack(self, problem: Problem, params: Params, generation: int) -> Float[Tensor, "batch rows *latent"]:
        """Where in the box between the parts each margin is low, from 0 (lower) to 1 (upper)."""
        halves, rows = self._halves(problem), problem.spec.shape[1]
        with torch.no_grad():
            lower, upper = (end.repeat_interleave(rows, 0) for end in _between(halves, problem, params))
        width = upper - lower
        # Bounds that are no numbers make the loss none, which training reports; there is nothing to attack.
        usable = lower.isfinite() & upper.isfinite()
        box = Box(lower.where(usable, torch.zeros_like(lower)), upper.where(usable, torch.zeros_like(upper)))

        outputs, forms = problem.fixed(params, halves.tail), -problem.spec.flatten(0, 1)

        def losses(points: Tensor, items: Tensor) -> Tensor:
            return (forms[items] * outputs(points)).sum(1)

        keys = [(*key, row) for key in problem.keys(generation) for row in range(rows)]
        points = self.attack.highest(losses, box, keys)
        inside = usable & (width > 0)
        found = (points - lower) / width.where(inside, torch.ones_like(width))
        places = found.clamp(0, 1).where(inside, torch.full_like(found, 0.5))
        return places.reshape(-1, rows, *lower.shape[1:])

    def _halves(self, problem: Problem) -> Halves:
        try:
            return split(problem.graph, self.split)
        except ConfigError as error:
            raise ConfigError(f"loss.split: {error}") from error


def _between(halves: Halves, problem: Problem, params: Params) -> tuple[Tensor, Tensor]:
    """Bounds of what goes from the first layers to the last ones, each [batch, *latent]."""
    found = problem.relaxation.bound(halves.head, params, problem.box)
    assert found.upper is not None
    shape = halves.tail.input_shape
    # Two rows that bound the same number may cross by rounding.
    lower, upper = torch.minimum(found.lower, found.upper), torch.maximum(found.lower, found.upper)
    return lower.reshape(-1, *shape), upper.reshape(-1, *shape)
