"""What every relaxation has that carries rows back: a budget for them, and what its back-substitutions share."""

from __future__ import annotations

from dataclasses import dataclass

from certtrain.bounds.backsubstitution import Substitution
from certtrain.bounds.base import Box, Relaxation
from certtrain.bounds.chunks import check_memory
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True, kw_only=True)
class Budgeted(Relaxation):
    """A relaxation by back-substitution.

    Attributes:
        memory_mb: MiB that the coefficients of all rows together may take at any moment; None leaves it to the device:
            what fits the cache on a CPU. Under `torch.func.vmap`, of each member.

    Raises:
        ConfigError: If memory_mb is not positive; from `bound`, if it is too small for one row.
    """

    memory_mb: int | float | None = None

    def __post_init__(self) -> None:
        check_memory(self.memory_mb)

    def substitution(self, graph: Graph, params: Params, box: Box) -> Substitution:
        """For one call of `bound`."""
        return Substitution.of(graph, graph.values(params, box.lower), box, self.memory_mb)
