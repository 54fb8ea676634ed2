"""How rows are laid out: one after the other with channels in the lanes of a vector, or side by side in bundles.

A bundle takes rows of one image and position, one in each lane. Full ones are several times as fast: nothing is padded,
and every step of the way is an operation on whole vectors. But lanes that stay empty cost as much as full ones.
"""

from __future__ import annotations

from collections.abc import Collection

from certtrain.bounds.rows.selection import RowIndex

# What a row costs by itself, in lanes of a bundle. On cnn3 and cnn5, where bundles were filled to a third, both took
# the same time.
ALONE = 3.0
# What a lane of a narrower vector costs: the numbers that fill vectors are then read twice as often.
NARROW = 1.25


def bundle_size(rows: RowIndex, sizes: Collection[int], most_rows: int) -> int | None:
    """Rows of a bundle; None where rows are better off alone.

    Only lanes are counted: neither what a bundle takes of the cache, nor rows of which it turns out later that nobody
    wants them.

    Args:
        rows: What to bound.
        sizes: That bundles may have.
        most_rows: That a thread may hold at a time.
    """
    places, widest = rows.places, max(sizes, default=0)
    costs: dict[int | None, float] = {None: ALONE * len(rows)}
    for size in sizes:
        if size <= most_rows:
            lanes = size * float(((places + size - 1) // size).sum())
            costs[size] = lanes * (1.0 if size == widest else NARROW)
    return min(costs, key=lambda size: costs[size])
