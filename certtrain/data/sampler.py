"""Samplers that choose the rows of a whole batch at a time."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Sampler

_SHUFFLE_STREAM = 1


class BatchRows(list[int]):
    """The rows of one batch: a list of indices that knows its place in the run.

    Attributes:
        epoch: the epoch the batch belongs to.
        number: the position of the batch in that epoch, counted from 0.
    """

    def __init__(self, rows: list[int], epoch: int, number: int) -> None:
        super().__init__(rows)
        self.epoch = epoch
        self.number = number


class ShuffledBatches(Sampler[list[int]]):
    """Batches of a permutation, a pure function of (seed, epoch): equal on all ranks and after a resume."""

    def __init__(self, rows: Int[Tensor, " rows"], batch_size: int, seed: int, drop_last: bool = False) -> None:
        """Prepares epoch 0.

        Args:
            rows: the indices to draw from, [rows].
            batch_size: the number of indices of a batch.
            seed: a non-negative integer.
            drop_last: leave out a last batch that is not full.
        """
        self.rows = rows.numpy()
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Selects the permutation; Lightning calls this before every epoch.

        A new epoch starts at its first batch; the current epoch again keeps the cursor that `resume` has set.
        """
        if epoch != self.epoch:
            self.start = 0
        self.epoch = epoch

    def resume(self, epoch: int, start: int) -> None:
        """Continues inside an epoch: its first `start` batches are skipped, the others keep their numbers."""
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        """The number of batches of a whole epoch, wherever the cursor is: Lightning counts whole epochs."""
        full, rest = divmod(len(self.rows), self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([_SHUFFLE_STREAM, self.seed, self.epoch])
        epoch, order = self.epoch, random.permutation(self.rows)
        for number in range(self.start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield BatchRows(batch.tolist(), epoch, number)


class SequentialBatches(Sampler[list[int]]):
    """Batches of the rows in their given order, every row exactly once: the last batch may be smaller."""

    def __init__(self, rows: Int[Tensor, " rows"], batch_size: int) -> None:
        """Takes the indices to go through, [rows], and the number of indices of a batch."""
        self.rows = rows
        self.batch_size = batch_size

    def __len__(self) -> int:
        """The number of batches."""
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.rows.split(self.batch_size):
            yield batch.tolist()
