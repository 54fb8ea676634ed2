"""A way to run jobs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from certtrain.sweep.jobs import Job
from certtrain.sweep.sweep import Sweep


class Runner(ABC):
    """When and where the processes of jobs run.

    Options are checked when a runner is built: before the sweep, and before anything is written.

    Attributes:
        side_by_side: Whether several jobs may run at a time.
    """

    side_by_side: ClassVar[bool]

    @abstractmethod
    def run(self, jobs: Iterable[Job], sweep: Sweep) -> None:
        """Runs jobs, and tells the sweep when each starts and ends; returns early when it is to stop.

        Args:
            jobs: Each is asked for when there is room for it, so that it can be chosen by what became of others.
            sweep: What they belong to.
        """

    def at_a_time(self, jobs: int | None) -> int:
        """How many jobs run at a time.

        Args:
            jobs: How many there are; None if nobody knows.
        """
        return 1
