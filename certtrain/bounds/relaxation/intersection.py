"""The best of several relaxations, row by row: each is sound, so their intersection is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from certtrain.bounds.base import Bounds, Box, Relaxation, Sides
from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class Intersection(Relaxation):
    """Largest lower and smallest upper bound of its parts; NaN in any part stays NaN.

    Raises:
        ConfigError: If there is no part.
    """

    parts: tuple[Relaxation, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError("Intersection needs at least one relaxation")

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        found = [part.bound(graph, params, box, spec, sides) for part in self.parts]
        lower = reduce(torch.maximum, [b.lower for b in found])
        uppers = [b.upper for b in found if b.upper is not None]
        return Bounds(lower, reduce(torch.minimum, uppers) if len(uppers) == len(found) else None)
