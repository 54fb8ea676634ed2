"""Which part of the images a process judges where several share the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Every `ranks`-th image: hard ones, which often lie together, are shared evenly.

    Attributes:
        rank: From 0 to `ranks` - 1.
        ranks: Shards altogether.
    """

    rank: int
    ranks: int

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Its part of something in the order of the images."""
        return items[self.rank :: self.ranks]


WHOLE = Shard(0, 1)
