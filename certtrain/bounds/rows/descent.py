"""All rows of one bound, ready to be carried back by an executor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from certtrain.bounds.rows.carry import Carried, carry
from certtrain.bounds.rows.chunks import rows_at_once, rows_kept
from certtrain.bounds.rows.dense import Operators
from certtrain.bounds.rows.passage import Linearization, Passage
from certtrain.bounds.rows.reach import Reach


@dataclass(frozen=True)
class Descent:
    """Rows that begin in one operation's output.

    Attributes:
        passage: The network and the box.
        carried: The rows, as far as they serve all images.
        linearization: Of every activation on their way.
        reaches: What they read of every operation on their way.
    """

    passage: Passage
    carried: Carried
    linearization: Linearization
    reaches: dict[int, Reach | None]

    @staticmethod
    def of(passage: Passage, start: Carried, linearization: Linearization) -> Descent:
        """Carries rows as far as they serve all images.

        Args:
            passage: The network and the box.
            start: The rows of all images, in one operation's output.
            linearization: Of every activation between the input and that operation.

        Raises:
            ConfigError: If the memory budget is too small for one row.
        """
        ((index, rows),) = start.pending.items()
        reaches = passage.reaches(index, rows.reach)
        carried = carry(passage, start, linearization, Operators(passage.values), shared=True)
        last = max(carried.pending)
        descent = Descent(passage, carried, linearization, {i: r for i, r in reaches.items() if i <= last})
        descent.rows_at_once(0)  # refuses a budget before anything is computed
        return descent

    @property
    def start(self) -> int:
        """The last operation that rows are in."""
        return max(self.carried.pending)

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device of all."""
        return self.passage.anchor.radius

    @cached_property
    def is_recorded(self) -> bool:
        """Whether autograd records what is computed with them."""
        return self.passage.is_recorded(*self.linearization.tensors)

    def rows_at_once(self, last: int) -> int:
        """Rows that fit into the memory budget on their way to an operation."""
        widths = self._widths(last)
        # For a backward pass every layer's rows are kept until the end of a piece.
        width = sum(widths) if self.is_recorded else max(widths)
        return rows_at_once(width, self.like, self.passage.memory_mb, self.is_recorded)

    def rows_kept(self, last: int) -> int:
        """Rows whose way to an operation may be kept for a backward pass."""
        return rows_kept(sum(self._widths(last)), self.like, self.passage.memory_mb)

    def _widths(self, last: int) -> list[int]:
        ops = self.passage.graph.ops
        return [ops[i].size if r is None else r.size for i, r in self.reaches.items() if i >= last]

    @cached_property
    def operators(self) -> Operators:
        """Linear operations in the forms that are fastest for these rows."""
        return self.passage.operators(self.reaches)
