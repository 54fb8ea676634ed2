"""What is open, in tensors: parts of the box, of which the worst are taken first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

P = TypeVar("P", bound="Parts")


class Parts(ABC):
    """Parts of one image's box.

    Attributes:
        lower: Best bounds, [count].
    """

    lower: Tensor

    @abstractmethod
    def map(self: P, function: Callable[[Tensor], Tensor]) -> P:
        """The same function of all tensors, whose first axis are the parts."""

    def __getitem__(self: P, which: Tensor | slice) -> P:
        return self.map(lambda x: x[which])

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def tensors(self) -> list[Tensor]:
        """All that there are."""
        found: list[Tensor] = []
        self.map(lambda x: found.append(x) or x)  # type: ignore[func-returns-value]
        return found

    def joined(self: P, others: list[P]) -> P:
        """These, and those of others."""
        columns = zip(*(part.tensors for part in (self, *others)), strict=True)
        joined = iter([torch.cat(column) for column in columns])
        return self.map(lambda _: next(joined))

    @property
    def nbytes(self) -> int:
        """What they take."""
        return sum(x.nbytes for x in self.tensors)


class Pool(Generic[P]):
    """Open parts by their bounds: the worst are taken first."""

    def __init__(self) -> None:
        self._parts: list[P] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def worst(self) -> float:
        """The lowest bound; infinity where none is open."""
        return min((float(part.lower.min()) for part in self._parts), default=float("inf"))

    @property
    def nbytes(self) -> int:
        """What all take."""
        return sum(part.nbytes for part in self._parts)

    def add(self, new: P) -> None:
        """Keeps them until they are taken."""
        if len(new):
            self._parts.append(new)
            self._count += len(new)

    def take(self, most: int) -> P:
        """Removes up to so many, of the lowest bounds."""
        first, *others = self._parts
        everything = first.joined(others) if others else first
        if len(everything) <= most:
            self._parts, self._count = [], 0
            return everything
        order = everything.lower.argsort()
        self._parts = [everything[order[most:]]]
        self._count = len(everything) - most
        return everything[order[:most]]
