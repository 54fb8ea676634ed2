"""What carries rows back. A new one is a file or folder beside this and a place among `executors.EXECUTORS`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from certtrain.bounds.rows.descent import Descent
from certtrain.bounds.rows.selection import Selection


class Executor(ABC):
    """Computes lower bounds of rows: in one way, on some devices, for the operations that it knows."""

    @abstractmethod
    def covers(self, descent: Descent) -> int | None:
        """The last operation from which it can carry rows all the way; None where it cannot at all.

        Rows that begin later must be brought there before.
        """

    @abstractmethod
    def lower(self, descent: Descent, selection: Selection, wanted: Tensor | None = None) -> Tensor:
        """Lower bounds [groups, k] of a selection of the rows; differentiable.

        Args:
            descent: The rows; they begin where `covers` says, or before.
            selection: Which of them.
            wanted: Which of these matter, numbers that are not zero, [groups · k]; the others' bounds may be anything.
        """
