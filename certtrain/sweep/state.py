"""What is known of a sweep while it runs: how many jobs are done, which is best, and how long the others will take."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.progress import Progress

# A job that has less of itself behind it says nothing about its length.
TELLING_FRACTION = 0.02


@dataclass
class Running:
    """A job that runs.

    Attributes:
        job: Which.
        since: When it began, of `time.monotonic`.
        progress: How far it is.
        said: The last line that it printed.
    """

    job: Job
    since: float
    progress: Progress
    said: str = ""

    @property
    def whole(self) -> float | None:
        """Seconds that it will take in all, if it goes on like this; None while that is too early to say."""
        if self.progress.fraction < TELLING_FRACTION:
            return None
        return (time.monotonic() - self.since) / self.progress.fraction


class State:
    """Counts of jobs; safe to ask from the thread that draws.

    Attributes:
        at_a_time: Jobs that run beside each other.
        total: How many there will be; None: those that are known.
    """

    def __init__(self) -> None:
        self.at_a_time = 1
        self.total: int | None = None
        self._known = 0
        self._statuses: dict[int, str] = {}
        self._seconds: list[float] = []
        self._running: dict[int, Running] = {}
        self._best: tuple[int, float] | None = None
        self._lock = threading.RLock()

    @property
    def several(self) -> bool:
        """Whether there is more than one job."""
        return max(self._known, self.total or 0) > 1

    def knows(self, jobs: Sequence[Job], outcomes: Mapping[int, Outcome]) -> None:
        """Takes notice of jobs; of those that were done before, what they reached."""
        with self._lock:
            for job in jobs[self._known :]:
                if outcomes[job.number].status == "done before":
                    self._statuses[job.number] = "done before"
                    progress = Progress(job)
                    progress.look()
                    self._consider(job, progress)
            self._known = len(jobs)

    def started(self, job: Job) -> None:
        """A job starts."""
        with self._lock:
            self._running[job.number] = Running(job, time.monotonic(), Progress(job))

    def said(self, job: Job, line: str) -> None:
        """A job printed something."""
        with self._lock:
            if (one := self._running.get(job.number)) is not None and line.strip():
                one.said = line.strip()

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A job has ended."""
        with self._lock:
            self._statuses[job.number] = outcome.status
            if outcome.seconds is not None and outcome.status in ("done", "pruned"):
                self._seconds.append(outcome.seconds)
            if (one := self._running.pop(job.number, None)) is not None:
                one.progress.look()
                self._consider(job, one.progress)

    def look(self) -> list[Running]:
        """The jobs that run, each with the progress that it has made by now."""
        with self._lock:
            found = [one for _, one in sorted(self._running.items())]
            for one in found:
                one.progress.look()
                self._consider(one.job, one.progress)
            return found

    def best(self) -> tuple[int, float] | None:
        """Number of the job with the best certified accuracy on validation images, and that; None before the first."""
        return self._best

    def counts(self) -> str:
        """How many have ended, in words."""
        with self._lock:
            statuses = list(self._statuses.values())
            done = sum(status.startswith("done") for status in statuses)
            words = [f"{done} of {max(self._known, self.total or 0)} done"]
            words += [f"{n} {name}" for name in ("pruned", "failed", "stopped") if (n := statuses.count(name))]
            return ", ".join(words)

    def seconds_left(self) -> float | None:
        """Until the last job ends, if the others take as long as those before; None while that is too early to say."""
        with self._lock:
            running = list(self._running.values())
            told = self._seconds or [whole for one in running if (whole := one.whole) is not None]
            if not told:
                return None
            usual, now = sum(told) / len(told), time.monotonic()
            lefts = [max(0.0, (one.whole or usual) - (now - one.since)) for one in running]
            unbegun = max(self._known, self.total or 0) - len(self._statuses) - len(running)
            if not running and unbegun <= 0:
                return None
            return max([*lefts, (sum(lefts) + max(0, unbegun) * usual) / self.at_a_time])

    def _consider(self, job: Job, progress: Progress) -> None:
        found = progress.validated
        if found is not None and (self._best is None or found > self._best[1]):
            self._best = job.number, found
