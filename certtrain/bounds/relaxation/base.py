"""What every relaxation has that carries rows back: a budget for them, and who carries them."""

from __future__ import annotations

from dataclasses import dataclass

from certtrain.bounds.analysis import Analysing, Given
from certtrain.bounds.base import Box
from certtrain.bounds.executors import EXECUTORS, Executor, ExecutorName
from certtrain.bounds.rows.chunks import check_memory
from certtrain.bounds.rows.passage import Passage
from certtrain.bounds.substitution.preactivation import Substitution
from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True, kw_only=True)
class BackSubstitution(Analysing):
    """A relaxation by back-substitution.

    Attributes:
        memory_mb: MiB that the coefficients of all rows together may take at any moment; None leaves it to the device:
            what fits the cache on a CPU. Under `torch.func.vmap`, of each member.
        executor: Who carries rows: "auto", compiled code where there is some; "tensors", tensor operations everywhere;
            or an `Executor`.

    Raises:
        ConfigError: If memory_mb is not positive, or there is no such executor; from `bound`, if it is too small for a
            row.
    """

    memory_mb: int | float | None = None
    executor: ExecutorName | Executor = "auto"

    def __post_init__(self) -> None:
        check_memory(self.memory_mb)
        if not isinstance(self.executor, Executor) and self.executor not in EXECUTORS:
            raise ConfigError(f"relaxation.executor must be one of {', '.join(EXECUTORS)}, got '{self.executor}'")

    def substitution(self, graph: Graph, params: Params, box: Box, given: Given) -> Substitution:
        """For one call."""
        passage = Passage.of(graph, graph.values(params, box.lower), box, self.memory_mb)
        executor = EXECUTORS[self.executor] if isinstance(self.executor, str) else self.executor
        return Substitution(passage, executor, given)
