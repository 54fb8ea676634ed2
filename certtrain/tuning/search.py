"""The search itself: hands out jobs of trials as there is room for them, and tells the study what they have reached."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from certtrain.errors import CerttrainError
from certtrain.lock import locked
from certtrain.sweep import record
from certtrain.sweep.jobs import PRUNED, Job, Outcome
from certtrain.sweep.progress import Progress
from certtrain.sweep.sweep import Sweep, SweepFailed
from certtrain.tuning.figures import figures_of, mean
from certtrain.tuning.front import draw
from certtrain.tuning.memory import Memory
from certtrain.tuning.results import Results
from certtrain.tuning.settings import Settings
from certtrain.tuning.space import Space
from certtrain.tuning.trials import Ongoing
from certtrain.tuning.watch import Watch

LOCK = "search.lock"


class Launching(Protocol):
    """What runs jobs: a launcher of `certtrain.sweep`."""

    @property
    def directory(self) -> Path:
        """Of the sweep, absolute."""

    def job(self, number: int, overrides: Sequence[str]) -> Job:
        """The job of some overrides."""

    def run(self, jobs: Iterable[Job], sweep: Sweep, total: int | None) -> None:
        """Runs jobs, each asked for when there is room for it."""


def search(settings: Settings, space: Space, launcher: Launching, sweep: Sweep, fail_fast: bool) -> None:
    """Runs a search to its end; one that was begun in this directory goes on.

    Args:
        settings: What was asked for.
        space: What is chosen.
        launcher: Runs the jobs.
        sweep: Which they belong to.
        fail_fast: Whether the first job that fails stops the others.

    Raises:
        CerttrainError: If another process searches there, if another search was begun there, or if no trial came to a
            result.
    """
    launcher.directory.mkdir(parents=True, exist_ok=True)
    with locked(launcher.directory, LOCK):
        Search(settings, space, launcher, sweep, fail_fast).run()


class Search:
    """Trials under way; jobs are handed out and end in several threads.

    Args:
        settings: What was asked for.
        space: What is chosen.
        launcher: Runs the jobs.
        sweep: Which they belong to.
        fail_fast: Whether the first job that fails stops the others.
    """

    def __init__(self, settings: Settings, space: Space, launcher: Launching, sweep: Sweep, fail_fast: bool) -> None:
        self.settings, self.space, self.launcher, self.sweep = settings, space, launcher, sweep
        self.directory = launcher.directory
        self.memory = Memory(self.directory, settings, space)
        self.results = Results(self.directory, settings, space, self.memory)
        self._fail_fast = fail_fast
        self._ongoing: dict[int, Ongoing] = {}
        self._lock = threading.RLock()

    def run(self) -> None:
        """See `search`."""
        sweep = self.sweep
        sweep.board.common = frozenset(self.space.fixed)
        sweep.told, sweep.present = self._ended, self._present
        self._take_up_earlier()
        self.results.write()
        total = self.memory.total * len(self.space.repetitions)
        with Watch(self._look) if self.settings.prunes else nullcontext():
            self.launcher.run(self._jobs(), sweep, total)
        if self.memory.count("COMPLETE") == 0 and self.memory.trials:
            self._present()
            why = self.results.last_reason() or "all were pruned"
            raise SweepFailed(f"no trial came to a result: {why}; the same command tries those that failed again")

    def _take_up_earlier(self) -> None:
        """Lists the jobs of trials that have ended, so that the record of the sweep still has them."""
        repetitions = len(self.space.repetitions)
        ended = self.memory.numbers("COMPLETE", "PRUNED")
        known = [
            Job(row["job"], tuple(row["overrides"]), self.directory / str(row["directory"]), (), self.directory)
            for row in record.read(self.directory)
            if row["job"] // repetitions in ended
        ]
        self.sweep.plan(self.directory, known, self._fail_fast)

    def _jobs(self) -> Iterator[Job]:
        """Job after job, until there are to be no more trials."""
        while (trial := self.memory.next()) is not None:
            one = self._begin(trial.number, trial.params)
            for job in one.jobs:
                with self._lock:
                    if one.reason is not None:
                        break
                    one.begun.add(job.number)
                waiting = self.sweep.plan(self.directory, [job], self._fail_fast)
                if job.is_pruned:  # an earlier process was killed before it could note it
                    self.sweep.ended(job, Outcome("pruned"))
                elif waiting:
                    yield job
                else:
                    self._ended(job, Outcome("done before"))
            self._settle(one)

    def _begin(self, number: int, values: dict[str, Any]) -> Ongoing:
        first = number * len(self.space.repetitions)
        jobs = tuple(self.launcher.job(first + i, own) for i, own in enumerate(self.space.jobs(values)))
        one = Ongoing(number, dict(values), jobs, Progress(jobs[0]))
        with self._lock:
            self._ongoing[number] = one
        return one

    def _ended(self, job: Job, outcome: Outcome) -> None:
        """Hears from the sweep that a job has ended."""
        with self._lock:
            one = self._ongoing[job.number // len(self.space.repetitions)]
            one.outcomes[job.number] = outcome
            if outcome.status.startswith("done"):
                (job.directory / PRUNED).unlink(missing_ok=True)  # the decision came after its end
            if outcome.status == "failed":
                one.give_up(f"job {job.number} failed")
            elif outcome.status == "pruned":
                one.give_up((job.directory / PRUNED).read_text(encoding="utf-8").strip())
        self._settle(one)

    def _settle(self, one: Ongoing) -> None:
        """Tells the study of a trial that is over."""
        with self._lock:
            if one.number not in self._ongoing or not one.is_over or one.is_unfinished:
                return
            self._look_at(one, decide=False)
            del self._ongoing[one.number]
            if (job := one.first("failed")) is not None:
                self.memory.ended_without(one.number, False, f"job {job.number} failed", one.seconds)
            elif one.first("pruned") is not None:
                self.memory.ended_without(one.number, True, str(one.reason), one.seconds)
            else:
                self._conclude(one)
            self.results.write()

    def _conclude(self, one: Ongoing) -> None:
        try:
            figures = mean([figures_of(job.directory, self.settings.figures) for job in one.jobs])
        except CerttrainError as error:
            self.memory.ended_without(one.number, False, str(error), one.seconds)
            self.sweep.board.note(f"trial {one.number} failed: {error}")
        else:
            self.memory.told(one.number, figures, one.seconds)

    def _look(self) -> None:
        """Looks at what running trials have reached, and ends those that are behind."""
        with self._lock:
            for one in list(self._ongoing.values()):
                if one.reason is None:
                    self._look_at(one, decide=True)

    def _look_at(self, one: Ongoing, decide: bool) -> None:
        if not self.settings.prunes:
            return
        one.progress.look()
        key = self.settings.objectives[0].key
        for epochs, numbers in sorted(one.progress.reports.items()):
            if epochs in one.told:
                continue
            one.told.add(epochs)
            value = numbers.get(key)
            if value is None:
                continue
            behind = self.memory.reported(one.number, epochs, value)
            # What has been trained to its end is judged by that.
            if decide and behind and one.progress.fraction < 1 and one.running:
                one.give_up(f"{key} {value:.4g} after epoch {epochs}, behind earlier trials")
                return

    def _present(self) -> None:
        """Prints and draws what came out."""
        self.results.write()
        self.results.show(self.sweep.board.console)
        draw(self.results)
