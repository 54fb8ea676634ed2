"""The attack inside losses: one set of options for all that attack."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.attacks import PGD
from certtrain.attacks.pgd import Key, is_lower
from certtrain.bounds.base import Box
from certtrain.errors import ConfigError
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params

# (points [some, *shape], images [some]) -> what is maximised [some]; see `certtrain.attacks.Margins`.
Losses = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Adversary:
    """Projected gradient ascent on a loss, from uniform random starts; the highest point met counts.

    Unlike an attack that looks for a counterexample, it goes on where an image is misclassified already, and does not
    look at the centre. CTRAIN keeps the highest point, too, but leaves out the starts, and asks the network about each
    twice: for its gradient, and for its loss; here both are one. It and others lower the step at fixed steps.

    Attributes:
        steps: Gradient steps per restart; 0 leaves the centre.
        restarts: Random starts.
        step_size: First step, as a multiple of half of the width that a pixel may move in; steps shrink linearly to
            zero.
        eps_factor: Radius of the ball that is attacked, as a multiple of eps (the expressive losses were published
            with 1 and 2.1).

    Raises:
        ConfigError: If a number is out of range.
    """

    steps: int = 8
    restarts: int = 1
    step_size: float = 1.0
    eps_factor: float = 1.0

    def __post_init__(self) -> None:
        check_number("attack.step_size", self.step_size, above=True)
        check_number("attack.eps_factor", self.eps_factor, above=True)
        self._pgd()  # which checks the rest

    def _pgd(self) -> PGD:
        try:
            return PGD(self.steps, self.restarts, None, self.step_size, enough=-math.inf)
        except ConfigError as error:
            raise ConfigError(f"loss.{error}") from error

    def highest(self, losses: Losses, box: Box, keys: Sequence[Key]) -> Float[Tensor, "batch *shape"]:
        """Points of a box at which a loss is as high as the attack can make it, detached.

        Args:
            losses: What is attacked.
            box: Where to look.
            keys: What the random starts of each image depend on.
        """

        def margins(points: Tensor, images: Tensor) -> Tensor:
            return -losses(points, images)[:, None]

        attack, everywhere = self._pgd(), torch.arange(len(box), device=box.lower.device)
        if not attack.rounds:
            return attack.center(margins, box)[0]
        # There is one row, which all restarts lower.
        none = box.lower.new_zeros(len(box), 1)
        points, lowest = attack.restart(margins, box, keys, everywhere, none, 0)
        for restart in range(1, attack.rounds):
            reached, margin = attack.restart(margins, box, keys, everywhere, none, restart)
            lower = is_lower(margin, lowest)
            points[lower], lowest[lower] = reached[lower], margin[lower]
        return points

    def misclassify(self, problem: Problem, params: Params, generation: int, box: Box | None = None) -> Tensor:
        """Points with a high cross-entropy: [batch, *shape].

        Args:
            problem: Its images.
            params: See `Loss.prepare`.
            generation: See `Loss.prepare`.
            box: Where to look; the ball of `eps_factor` by default.
        """
        where = problem.ball(self.eps_factor) if box is None else box
        return self.highest(problem.losses_at(params), where, problem.keys(generation))

    def refuse_factor(self, loss: str) -> None:
        """For losses whose attack stays inside the box, since what they bound lies around its point.

        Raises:
            ConfigError: If another ball was asked for.
        """
        if self.eps_factor != 1:
            raise ConfigError(f"loss.attack.eps_factor must be 1 for {loss}, whose attack stays inside the box")


# What conf/loss/attack says.
STANDARD = Adversary()
