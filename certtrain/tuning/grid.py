"""A sampler that chooses nothing: every combination is in the queue of the study."""

from __future__ import annotations

from optuna.samplers import RandomSampler


class Grid(RandomSampler):
    """Every combination once, in their order.

    Optuna's own grid ends its study by a call that exists only inside of `optimize`. A search that asks and tells has
    the combinations queued instead, in the study file. Trials of the queue are given their values.
    """
