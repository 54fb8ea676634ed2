"""One rank's part of a batch, and what it weighs in the whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.gradients.ranks import Ranks


@dataclass(frozen=True)
class Shard:
    """The images that one rank computes losses on.

    Attributes:
        batch: [batch, *input_shape], the whole batch: batch norm's statistics are taken of it.
        inputs: [own, *input_shape], the rank's own of these.
        labels: [own].
        weight: Own images over all images, so that the weighted mean losses of all shards add up to the batch's.
        first: Place of the first own image in the batch.
    """

    batch: Tensor
    inputs: Tensor
    labels: Tensor
    weight: float
    first: int = 0

    def parts(self, count: int) -> list[Shard]:
        """The shard in at most so many parts of nearly equal size, whose weighted mean losses add up to its own."""
        pieces = torch.arange(len(self.inputs)).tensor_split(min(count, len(self.inputs)))
        own = [slice(int(piece[0]), int(piece[-1]) + 1) for piece in pieces]
        total = len(self.inputs)
        return [
            Shard(
                self.batch,
                self.inputs[part],
                self.labels[part],
                self.weight * (part.stop - part.start) / total,
                self.first + part.start,
            )
            for part in own
        ]

    @staticmethod
    def of(batch: tuple[Tensor, Tensor], ranks: Ranks) -> Shard:
        """The rank's shard of a batch of (inputs, labels).

        A rank without images, in a batch smaller than the number of ranks, gets the first one with weight 0: it takes
        part in every step like the others.
        """
        inputs, labels = batch
        images = ranks.shard(len(inputs))
        own = images if len(images) else range(1)
        part = slice(own.start, own.stop)
        return Shard(inputs, inputs[part], labels[part], len(images) / len(inputs), own.start)
