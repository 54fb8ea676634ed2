"""How many rows are carried back at a time.

On a CPU a chunk should stay in the cache: fresh memory is written at a fifth of the cache's speed. On a GPU it should
be large. Either way `memory_mb` bounds what all rows together may take at any moment.
"""

from __future__ import annotations

from math import ceil, inf

import torch
from torch import Tensor

from certtrain.errors import ConfigError

MEGABYTE = 1 << 20
# MiB, where memory_mb is null. A backward pass reads a chunk's layers long after they were written, so that the cache
# matters less to it than the number of chunks.
CACHE = 16.0
BACKWARD = 256.0
DEVICE = 2048.0
# Part of a GPU's memory that pieces may keep together for a backward pass, which takes the others through again. Of all
# its memory, not of what happens to be free, so that the same card sums in the same order.
KEPT = 1 / 4
# Copies of a layer's rows that are alive at once: rows before and after, their negative part, a product, the
# convolution's own.
COPIES = 5


def check_memory(memory_mb: int | float | None) -> None:
    """Refuses a budget that is no positive number.

    Raises:
        ConfigError: In one line.
    """
    if memory_mb is not None and not (isinstance(memory_mb, (int, float)) and 0 < memory_mb < inf):
        raise ConfigError(f"relaxation.memory_mb must be a positive number of MiB, or null, got {memory_mb}")


def rows_at_once(elements: int, like: Tensor, memory_mb: int | float | None, recorded: bool) -> int:
    """Rows whose coefficients fit into the budget.

    Args:
        elements: Coefficients of one row where it is widest; all that are kept for it at once.
        like: Gives dtype and device.
        memory_mb: The budget in MiB; None for the device's default, under which one row is always tried.
        recorded: Whether a backward pass will follow; only matters to the default.

    Raises:
        ConfigError: If a given budget is too small for one row.
    """
    row = elements * like.element_size() * COPIES
    budget = _default(like.device, recorded) if memory_mb is None else memory_mb
    rows = int(budget * MEGABYTE // row)
    if rows < 1 and memory_mb is not None:
        raise ConfigError(
            f"relaxation.memory_mb={memory_mb:g} is too small: one row of this network takes {row / MEGABYTE:.2g} MiB"
        )
    return max(rows, 1)


def _default(device: torch.device, recorded: bool) -> float:
    if device.type != "cpu":
        return DEVICE
    return BACKWARD if recorded else CACHE


def rows_kept(elements: int, like: Tensor, memory_mb: int | float | None) -> int:
    """Rows, in one piece or in several, whose way may be kept for a backward pass; arguments as of `rows_at_once`.

    On a CPU those of one piece: fresh memory for more costs more than computing them again. On a GPU memory is there.
    """
    if memory_mb is None and like.device.type == "cuda":
        memory_mb = KEPT * torch.cuda.get_device_properties(like.device).total_memory / MEGABYTE
    return rows_at_once(elements, like, memory_mb, recorded=True)


def evenly(total: int, most: int) -> int:
    """The size of pieces of at most `most`, of which the last is not much smaller."""
    return ceil(total / ceil(total / most)) if total else 1
