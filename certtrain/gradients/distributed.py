"""Ranks over torch.distributed: who evaluates what, and what is sent.

A generation of P members costs P scalars (the losses) and |θ| numbers (the gradient), whatever the number of ranks, and
with a control variate P/2 scalars and |θ| numbers more; rgs as one tells of every sample whether it is finite where
ranks divide a batch. Noise is generated where it is needed and never sent (Salimans et al., arXiv 1703.03864).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from certtrain.errors import CerttrainError, ConfigError, one_line
from certtrain.gradients.ranks import Ranks, portion
from certtrain.networks.graph import Params

# How the backends name a rank that is gone or does not answer.
_LOST = ("closed by peer", "reset by peer", "broken pipe", "timed out", "timeout")


class PeerLost(CerttrainError):
    """Another rank ended, or does not answer."""


@contextmanager
def noticing_lost_peers(ranks: Ranks) -> Iterator[None]:
    """Turns the backends' ways of saying that another rank is gone into one error.

    Raises:
        PeerLost: In place of such an error, if there are others; every other error passes.
    """
    try:
        yield
    except RuntimeError as error:
        spoken = isinstance(error, dist.DistError) or any(word in str(error).lower() for word in _LOST)
        if ranks.size == 1 or not spoken:
            raise
        raise PeerLost(f"rank {ranks.rank} stops: another rank ended or does not answer ({one_line(error)})") from error


@dataclass(frozen=True)
class Layout:
    """How a generation is divided.

    Attributes:
        size: Ranks.
        groups: Groups of ranks with consecutive numbers. Each group evaluates its share of a population, the ranks of a
            group split the batch.
        copies: Ranks that hold the same part of a gradient when it is summed.

    Raises:
        ConfigError: If the groups would not be of one size.
    """

    size: int
    groups: int
    copies: int

    def __post_init__(self) -> None:
        if self.groups < 1 or self.size % self.groups:
            raise ConfigError(f"pgpe.groups must divide the number of ranks, {self.size}, got {self.groups}")

    @staticmethod
    def population(size: int) -> Layout:
        """Every rank its share of the population, on the whole batch."""
        return Layout(size, size, 1)

    @staticmethod
    def hybrid(size: int, groups: int) -> Layout:
        """Every group its share of the population; the losses are summed in the group, so its ranks hold the same."""
        return Layout(size, groups, size // max(groups, 1))

    @staticmethod
    def batch(size: int) -> Layout:
        """Every rank its part of the batch, and the gradient of this part: data parallelism."""
        return Layout(size, 1, 1)

    @property
    def per_group(self) -> int:
        """Ranks of a group."""
        return self.size // self.groups

    def share(self, rank: int, count: int) -> range:
        """See `Ranks.share`."""
        return portion(count, rank // self.per_group, self.groups)

    def shard(self, rank: int, images: int) -> range:
        """See `Ranks.shard`."""
        return portion(images, rank % self.per_group, self.per_group)


@dataclass
class Traffic:
    """What the collective operations that a rank took part in have delivered so far.

    Attributes:
        scalars: Losses, gathered or reduced.
        numbers: Numbers of gradients, all-reduced.
        calls: Operations.
    """

    scalars: int = 0
    numbers: int = 0
    calls: int = 0


class Distributed(Ranks):
    """The ranks of an initialised torch.distributed.

    Every rank must construct it at the same point, since it makes process groups.

    Args:
        layout: How a generation is divided.
        timeout_s: Seconds without an answer from another rank after which this one gives up.

    Attributes:
        layout: As given.
        traffic: What was exchanged.
    """

    def __init__(self, layout: Layout, timeout_s: float) -> None:
        if layout.size != dist.get_world_size():
            raise ConfigError(f"{dist.get_world_size()} processes were started for {layout.size} ranks")
        self.layout = layout
        self.traffic = Traffic()
        self._rank = dist.get_rank()
        self._group, self._member = divmod(self._rank, layout.per_group)
        timeout, every, per_group = timedelta(seconds=timeout_s), range(layout.size), layout.per_group
        self._world = dist.new_group(list(every), timeout)
        # Making a group is itself a collective operation: every rank makes all of them, in the same order.
        inside = [dist.new_group(list(every[g * per_group :][:per_group]), timeout) for g in range(layout.groups)]
        across = [dist.new_group(list(every[m::per_group]), timeout) for m in range(per_group)]
        self._inside: ProcessGroup = inside[self._group]
        self._across: ProcessGroup = across[self._member]

    @property
    def rank(self) -> int:
        """See `Ranks.rank`."""
        return self._rank

    @property
    def size(self) -> int:
        """See `Ranks.size`."""
        return self.layout.size

    def share(self, count: int) -> range:
        """See `Ranks.share`."""
        return self.layout.share(self._rank, count)

    def shard(self, images: int) -> range:
        """See `Ranks.shard`."""
        return self.layout.shard(self._rank, images)

    def reduce(self, losses: Tensor) -> Tensor:
        """See `Ranks.reduce`."""
        if self.layout.per_group == 1:
            return losses
        total = losses.contiguous().clone()
        with noticing_lost_peers(self):
            dist.all_reduce(total, group=self._inside)
        self._count(scalars=losses.numel())
        return total

    def gather(self, values: Tensor, count: int) -> Tensor:
        """See `Ranks.gather`."""
        groups = self.layout.groups
        if groups == 1:
            return values
        shares = [portion(count, group, groups) for group in range(groups)]
        # Collectives want equal sizes: the one item by which shares may differ is padded and cut off again.
        widest = max(len(share) for share in shares)
        own = values.new_zeros((*values.shape[:-1], widest))
        own[..., : values.shape[-1]] = values
        found = [torch.empty_like(own) for _ in shares]
        with noticing_lost_peers(self):
            dist.all_gather(found, own, group=self._across)
        self._count(scalars=math.prod(values.shape[:-1]) * count)
        return torch.cat([part[..., : len(share)] for part, share in zip(found, shares, strict=True)], dim=-1)

    def sum(self, gradient: Params) -> Params:
        """See `Ranks.sum`."""
        return self._added(gradient, self.layout.copies)

    def whole(self, gradient: Params) -> Params:
        """See `Ranks.whole`."""
        return self._added(gradient, self.layout.groups)

    def _added(self, gradient: Params, times: int) -> Params:
        """The sum of what all ranks have, in which everything is there so many times."""
        flat = torch.cat([g.reshape(-1) for g in gradient.values()])
        # Over all ranks, not over one of each group: a single result cannot differ between groups.
        with noticing_lost_peers(self):
            dist.all_reduce(flat, group=self._world)
        self._count(numbers=flat.numel())
        parts = (flat / times).split([g.numel() for g in gradient.values()])
        return {name: part.view_as(g) for (name, g), part in zip(gradient.items(), parts, strict=True)}

    def _count(self, scalars: int = 0, numbers: int = 0) -> None:
        self.traffic.scalars += scalars
        self.traffic.numbers += numbers
        self.traffic.calls += 1
