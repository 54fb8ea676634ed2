"""How rows are laid out: one after the other with channels in the lanes of a vector, or side by side in bundles.

A bundle takes rows of one image and position, one in each lane. Full ones are several times as fast: nothing is padded,
every step of the way is an operation on whole vectors, and what an activation blocks is passed over. But lanes that
stay empty cost as much as full ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from certtrain.bounds.rows.selection import RowIndex

# What a row costs by itself, in lanes of a bundle. On cnn3 and cnn5, where bundles were filled to a third, both took
# the same time.
ALONE = 3.0
# What a lane of a narrower vector costs: the numbers that fill vectors are then read twice as often.
NARROW = 1.25
# What derivatives of a full bundle cost where nothing is blocked, by those of the same rows one after the other: cnn3
# and cnn5 with random weights, margins (nine rows in sixteen lanes) and hidden layers (full bundles).
FULL = 0.7


class Bundling(ABC):
    """Chooses how rows are laid out."""

    @abstractmethod
    def of_bounds(self, rows: RowIndex, sizes: Collection[int], most_rows: int) -> int | None:
        """Rows of a bundle; None where rows are better off alone.

        Args:
            rows: What to bound.
            sizes: That bundles may have.
            most_rows: That a thread may hold at a time.
        """

    @abstractmethod
    def of_derivatives(self, rows: RowIndex, size: int, passing: float) -> int | None:
        """The same for the derivatives of rows that were bounded in bundles.

        Args:
            rows: What was bounded.
            size: Of the bundles.
            passing: Share of neurons on the way that their activations do not block.
        """


@dataclass(frozen=True)
class Cheapest(Bundling):
    """Counts lanes.

    Neither what a bundle takes of the cache counts, nor rows of which it turns out later that nobody wants them.
    """

    def of_bounds(self, rows: RowIndex, sizes: Collection[int], most_rows: int) -> int | None:
        """See `Bundling`."""
        widest = max(sizes, default=0)
        costs: dict[int | None, float] = {None: ALONE * len(rows)}
        for size in sizes:
            if size <= most_rows:
                costs[size] = _lanes(rows, size) * (1.0 if size == widest else NARROW)
        return min(costs, key=lambda size: costs[size])

    def of_derivatives(self, rows: RowIndex, size: int, passing: float) -> int | None:
        """See `Bundling`."""
        return size if FULL * passing * _lanes(rows, size) < len(rows) else None


def _lanes(rows: RowIndex, size: int) -> float:
    """Of all bundles, full or not."""
    return size * float(((rows.places + size - 1) // size).sum())
