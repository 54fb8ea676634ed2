"""The processes that work on one generation together, as an estimator sees them.

An estimator never asks whether there are several. It takes its share of the pairs, hands the losses of its share to
`reduce` and `gather`, weights the noise of its own pairs by the losses of all, and has `sum` add the parts up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from certtrain.networks.graph import Params


def portion(count: int, part: int, parts: int) -> range:
    """The contiguous items of one of several parts of nearly equal size: sizes differ by at most one."""
    return range(part * count // parts, (part + 1) * count // parts)


class Ranks(ABC):
    """The processes of a run. All of them call the same methods in the same order."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of processes."""

    @abstractmethod
    def share(self, count: int) -> range:
        """This rank's contiguous share of `count` items of a population; shares differ by at most one."""

    @abstractmethod
    def shard(self, images: int) -> range:
        """This rank's contiguous part of a batch of `images` that it evaluates its share of the population on."""

    @abstractmethod
    def reduce(self, losses: Tensor) -> Tensor:
        """Losses on the whole batch, from losses on this rank's part of it: summed over the ranks that split it."""

    @abstractmethod
    def gather(self, values: Tensor, count: int) -> Tensor:
        """All values: [..., own share] -> [..., count] in the order of items, the same on every rank."""

    @abstractmethod
    def sum(self, gradient: Params) -> Params:
        """The sum of all ranks' parts of a gradient, the same on every rank: one all-reduce of |θ| numbers."""

    @abstractmethod
    def whole(self, gradient: Params) -> Params:
        """The gradient on the whole batch, the same on every rank, from that on this rank's part of it."""


@dataclass(frozen=True)
class Alone(Ranks):
    """One process: everything is its own."""

    @property
    def rank(self) -> int:
        """The only one."""
        return 0

    @property
    def size(self) -> int:
        """One."""
        return 1

    def share(self, count: int) -> range:
        """See `Ranks.share`."""
        return range(count)

    def shard(self, images: int) -> range:
        """See `Ranks.shard`."""
        return range(images)

    def reduce(self, losses: Tensor) -> Tensor:
        """See `Ranks.reduce`."""
        return losses

    def gather(self, values: Tensor, count: int) -> Tensor:
        """See `Ranks.gather`."""
        return values

    def sum(self, gradient: Params) -> Params:
        """See `Ranks.sum`."""
        return gradient

    def whole(self, gradient: Params) -> Params:
        """See `Ranks.whole`."""
        return gradient
