"""What is open, in tensors: parts of the box, of which the worst are taken first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Block(Generic[P]):
    """Parts, of which some were taken: `left` are the others' places, ascending."""

    parts: P
    left: Tensor

    @staticmethod
    def of(parts: P) -> _Block[P]:
        return _Block(parts, torch.arange(len(parts)))

    @property
    def lower(self) -> Tensor:
        return self.parts.lower[self.left]

    @property
    def dense(self) -> P:
        return self.parts if len(self.left) == len(self.parts) else self.parts[self.left]

    def without(self, taken: Tensor) -> _Block[P]:
        """With other parts taken, too, whose places among those left are given; copied once half of them are gone."""
        keep = torch.ones(len(self.left), dtype=torch.bool)
        keep[taken] = False
        rest = _Block(self.parts, self.left[keep])
        return rest if 2 * len(rest.left) > len(self.parts) else _Block.of(rest.dense)


class Pool(Generic[P]):
    """Open parts by their bounds: the worst are taken first.

    Parts stay where they are until half of their block is taken, and blocks are joined while an older one is not twice
    as large: what is kept is copied a logarithmic number of times, not with every batch.
    """

    def __init__(self) -> None:
        self._blocks: list[_Block[P]] = []

    def __len__(self) -> int:
        return sum(len(block.left) for block in self._blocks)

    @property
    def worst(self) -> float:
        """The lowest bound; infinity where none is open."""
        return min((float(block.lower.min()) for block in self._blocks), default=float("inf"))

    @property
    def nbytes(self) -> int:
        """What all take."""
        return sum(block.parts.nbytes for block in self._blocks)

    def add(self, new: P) -> None:
        """Keeps them until they are taken."""
        if not len(new):
            return
        blocks, newest = self._blocks, _Block.of(new)
        while blocks and len(blocks[-1].left) < 2 * len(newest.left):
            newest = _Block.of(blocks.pop().dense.joined([newest.dense]))
        blocks.append(newest)

    def take(self, most: int) -> P:
        """Removes up to so many, of the lowest bounds."""
        lower = torch.cat([block.lower for block in self._blocks])
        chosen = lower.argsort()[:most].sort().values
        ends = torch.tensor([len(block.left) for block in self._blocks]).cumsum(0)
        found, rest = [], []
        for block, end in zip(self._blocks, ends.tolist(), strict=True):
            own = chosen[(chosen < end) & (chosen >= end - len(block.left))] - (end - len(block.left))
            if len(own):
                found.append(block.parts[block.left[own]])
            if len(own) < len(block.left):
                rest.append(block.without(own) if len(own) else block)
        self._blocks = rest
        first, *others = found
        return first.joined(others) if others else first
