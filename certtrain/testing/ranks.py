"""Ranks that are threads of this process: what several processes would do to an estimate, without starting any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from certtrain.gradients import Layout, Ranks
from certtrain.networks.graph import Params

T = TypeVar("T")
# For the other ranks to come to the same call; they compute in the meantime.
PATIENCE_S = 60.0


class Meeting:
    """Where ranks exchange values, one call after the other.

    Args:
        size: Ranks.
    """

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size)
        self._table: list[tuple[str, Any]] = [("", None)] * size

    def exchange(self, rank: int, call: str, value: Any) -> list[Any]:
        """The values of all ranks.

        Raises:
            AssertionError: If they do not all make the same call: processes would wait for each other for ever.
        """
        self._table[rank] = (call, value)
        self._barrier.wait(PATIENCE_S)
        found = list(self._table)
        self._barrier.wait(PATIENCE_S)
        calls = [name for name, _ in found]
        assert len(set(calls)) == 1, f"ranks wait for each other: they are in the calls {', '.join(calls)}"
        return [given for _, given in found]

    def leave(self) -> None:
        """Lets nobody wait any longer."""
        self._barrier.abort()


class ThreadRanks(Ranks):
    """One of several threads.

    Args:
        layout: How a generation is divided.
        rank: Number of this one.
        meeting: Where they meet.
    """

    def __init__(self, layout: Layout, rank: int, meeting: Meeting) -> None:
        self.layout = layout
        self._rank, self._meeting = rank, meeting
        self._group, self._member = divmod(rank, layout.per_group)

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
        per_group = self.layout.per_group
        parts = self._exchange("reduce", losses)[self._group * per_group :][:per_group]
        return torch.stack(parts).sum(0)

    def gather(self, values: Tensor, count: int) -> Tensor:
        """See `Ranks.gather`."""
        found = torch.cat(self._exchange("gather", values)[self._member :: self.layout.per_group], dim=-1)
        assert found.shape[-1] == count, f"of {count} values ranks hold {found.shape[-1]}"
        return found

    def sum(self, gradient: Params) -> Params:
        """See `Ranks.sum`."""
        return self._added("sum", gradient, self.layout.copies)

    def whole(self, gradient: Params) -> Params:
        """See `Ranks.whole`."""
        return self._added("whole", gradient, self.layout.groups)

    def _added(self, call: str, gradient: Params, times: int) -> Params:
        """The sum of what all ranks have, in which everything is there so many times."""
        parts = self._exchange(call, gradient)
        return {name: torch.stack([part[name] for part in parts]).sum(0) / times for name in gradient}

    def _exchange(self, call: str, value: Any) -> list[Any]:
        return self._meeting.exchange(self._rank, call, value)


def on_threads(layout: Layout, work: Callable[[Ranks], T]) -> list[T]:
    """What `work(ranks)` returns on every rank.

    Args:
        layout: How a generation is divided.
        work: What every rank does, at the same time as the others.

    Raises:
        AssertionError: If ranks do not make the same calls. Whatever else a rank raises passes.
    """
    meeting = Meeting(layout.size)
    found: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(ThreadRanks(layout, rank, meeting))
            meeting.exchange(rank, "end", None)
        except BaseException as error:
            errors.append(error)  # the first one is the cause: the others only find that nobody comes
            meeting.leave()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(layout.size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [found[rank] for rank in range(layout.size)]
