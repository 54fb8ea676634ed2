"""Small boxes around attacked points: what SABR and STAPS bound instead of the whole box."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certtrain.bounds.base import Box
from certtrain.losses.adversary import Adversary
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.losses.shrunk_intervals import shrunk
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class SmallBox:
    """A box of a share λ of the width, around a point that an attack finds where it fits into the whole box.

    Widths are shares of each pixel's own, which is less at the ends of the legal range, as in the public code of TAPS;
    that of SABR takes λ · eps everywhere and cuts.

    Attributes:
        ratio: λ in (0, 1]; 1 is the whole box.
        attack: Finds the point.
        relu_shrinkage: What crossing ReLUs lose of their upper bounds, see `ShrunkIntervals`.
    """

    ratio: float
    attack: Adversary
    relu_shrinkage: float = 0.0

    def __post_init__(self) -> None:
        check_number("subselection_ratio", self.ratio, high=1.0, above=True)
        check_number("relu_shrinkage", self.relu_shrinkage, high=1.0)

    def center(self, problem: Problem, params: Params, generation: int) -> Tensor:
        """The attacked points, see `Loss.prepare`: [batch, *shape]."""
        middle, room = problem.box.center, (1 - self.ratio) * problem.box.radius
        return self.attack.misclassify(problem, params, generation, Box(middle - room, middle + room))

    def around(self, problem: Problem, center: Tensor) -> Problem:
        """The problem of the small box alone, with its ReLUs shrunk.

        Raises:
            ConfigError: If ReLUs are to be shrunk, and the relaxation has no intervals.
        """
        box, radius = problem.box, self.ratio * problem.box.radius
        # Rounding must not put it outside of the whole one.
        small = Box(torch.maximum(center - radius, box.lower), torch.minimum(center + radius, box.upper))
        return replace(problem, box=small, relaxation=shrunk(problem.relaxation, self.relu_shrinkage))
