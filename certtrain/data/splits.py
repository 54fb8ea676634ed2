"""Splits that keep the class proportions and stay the same for ever."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


def stratified_split(
    labels: Int[Tensor, " images"], size: int, seed: int
) -> tuple[Int[Tensor, " rest"], Int[Tensor, " size"]]:
    """Splits the rows of a data set in two parts with the same class proportions.

    Each class gives its share of `size`, rounded so that the shares add up (largest remainder).

    Args:
        labels: the class of each row, [images].
        size: the number of rows of the second part, from 0 to `images`.
        seed: from 0 to 2**32 - 1; decides which rows of a class are taken, and nothing else.

    Returns:
        The rows of the first part and those of the second, each in ascending order, int64.
    """
    # RandomState, because NumPy guarantees that its stream never changes: the split must outlive upgrades.
    random = np.random.RandomState(seed)
    classes, counts = np.unique(labels.numpy(), return_counts=True)
    shares = counts * size / len(labels) if len(labels) else counts
    taken = np.floor(shares).astype(np.int64)
    missing = size - int(taken.sum())
    # Stable: among equal remainders the lower class comes first, on every platform.
    taken[np.argsort(taken - shares, kind="stable")[:missing]] += 1
    chosen = np.zeros(len(labels), dtype=bool)
    for label, count in zip(classes, taken, strict=True):
        rows = np.flatnonzero(labels.numpy() == label)
        chosen[random.permutation(rows)[:count]] = True
    return torch.from_numpy(np.flatnonzero(~chosen)), torch.from_numpy(np.flatnonzero(chosen))
