"""A trial that is under way: one choice of values, as one job or one per repetition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.progress import Progress

UNFINISHED = ("stopped", "not run")


@dataclass
class Ongoing:
    """Which jobs of a trial have begun, and what became of them.

    The first repetition stands for the trial while it runs: its validations are compared with those of the first
    repetitions of other trials, and if it is behind, no other one is needed.

    Attributes:
        number: Of the trial.
        values: Key -> what was chosen.
        jobs: All repetitions, in their order.
        progress: Of the first.
        begun: Numbers of the jobs that were handed out.
        outcomes: Number of a job -> what became of it.
        reason: Why no further repetition is to begin; None if there is no reason.
        told: Epochs of the validations that the study has been told.
    """

    number: int
    values: dict[str, Any]
    jobs: tuple[Job, ...]
    progress: Progress
    begun: set[int] = field(default_factory=set)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    reason: str | None = None
    told: set[int] = field(default_factory=set)

    @property
    def running(self) -> list[Job]:
        """Jobs that have begun and not ended."""
        return [job for job in self.jobs if job.number in self.begun - self.outcomes.keys()]

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs, and nothing is to begin."""
        begun = len(self.begun) == len(self.jobs) or self.reason is not None
        return begun and bool(self.begun) and not self.running

    @property
    def is_unfinished(self) -> bool:
        """Whether a job was stopped from outside: the trial goes on when the search does."""
        return any(outcome.status in UNFINISHED for outcome in self.outcomes.values())

    @property
    def seconds(self) -> float | None:
        """Wall-clock time of its jobs together; None where one was done before, by a process that is gone."""
        known = [outcome.seconds for outcome in self.outcomes.values()]
        return None if None in known else sum(one for one in known if one is not None)

    def first(self, status: str) -> Job | None:
        """The first job that this is said of."""
        numbers = {number for number, outcome in self.outcomes.items() if outcome.status == status}
        return next((job for job in self.jobs if job.number in numbers), None)

    def give_up(self, reason: str) -> None:
        """Ends what runs, and begins nothing more.

        Args:
            reason: In words; the first one counts.
        """
        if self.reason is None:
            self.reason = reason
            for job in self.running:
                job.prune(reason)
