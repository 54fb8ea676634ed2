"""What is known about the sweep that this process runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from rich.console import Console

from certtrain.errors import CerttrainError
from certtrain.sweep import record
from certtrain.sweep.board import Board
from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.stop import Stop

# Nothing is left to do for jobs of which this is said.
ENDED = ("done", "done before", "pruned")

_current: ContextVar[Sweep] = ContextVar("sweep")


class SweepFailed(CerttrainError):
    """Jobs of a sweep failed."""


class Sweep:
    """Jobs and what became of them; a sweeper may plan them in several batches.

    Args:
        console: Where people read.
    """

    def __init__(self, console: Console) -> None:
        self.board = Board(console)
        self.stop = Stop()
        self.directory: Path | None = None
        self._jobs: list[Job] = []
        self._outcomes: dict[int, Outcome] = {}
        # Who chooses jobs by what became of others hears it here, and prints what came out in another table.
        self.told: Callable[[Job, Outcome], None] = lambda job, outcome: None
        self.present: Callable[[], None] = self._present
        self._fail_fast = False
        self._before: dict[int, list[str]] | None = None
        # Jobs that run side by side report from threads of their own.
        self._lock = threading.RLock()

    def plan(self, directory: Path, jobs: Sequence[Job], fail_fast: bool) -> list[Job]:
        """Adds jobs, and returns those that have no result yet.

        Args:
            directory: Of the sweep; made if it is not there.
            jobs: The next ones.
            fail_fast: Whether the first that fails stops the others.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._fail_fast = directory, fail_fast
        if self._before is None:  # what an earlier process has left; from now on the record is ours
            self._before = {row["job"]: row["overrides"] for row in record.read(directory)}
        for job in jobs:
            known = self._before.get(job.number) == list(job.overrides)
            pruned = known and job.is_pruned
            done = known and job.is_finished
            self._outcomes[job.number] = Outcome("done before" if done else "pruned" if pruned else "waiting")
        with self._lock:
            self._jobs += jobs
            self.board.knows(self._jobs, self._outcomes)
            self._write()
        return [job for job in jobs if self._outcomes[job.number].status == "waiting"]

    @contextmanager
    def running(self, side_by_side: bool, at_a_time: int = 1, total: int | None = None) -> Iterator[None]:
        """Inside, jobs are shown while they run, and signals stop them; afterwards, none is left waiting.

        Args:
            side_by_side: Whether what a job prints is kept from the terminal.
            at_a_time: Jobs that run beside each other.
            total: How many there will be; None: those that are planned.
        """
        self.board.open(side_by_side, at_a_time, total)
        try:
            with self.stop.on_signals():
                yield
        finally:
            self.board.close()
            for number, outcome in self._outcomes.items():
                if outcome.status in ("waiting", "running"):
                    self._outcomes[number] = Outcome("not run" if outcome.status == "waiting" else "stopped")
            self._write()

    def run(self, job: Job, runner: Callable[[Job], Outcome]) -> None:
        """Runs a job unless the sweep is to stop, and keeps what became of it."""
        if self.stop.asked:
            return
        self.started(job)
        self.ended(job, runner(job))

    def started(self, job: Job) -> None:
        """Notes that a job starts."""
        with self._lock:
            self._outcomes[job.number] = Outcome("running")
            self._write()
            self.board.started(job)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Notes what became of a job."""
        with self._lock:
            self._outcomes[job.number] = outcome
            self._write()
            self.board.ended(job, outcome)
            if outcome.status == "failed" and self._fail_fast and not self.stop.asked:
                self.stop.ask()
        self.told(job, outcome)

    def conclude(self) -> None:
        """Prints what came out.

        Raises:
            SweepFailed: If a job failed.
            KeyboardInterrupt: If a signal stopped the sweep.
        """
        if self.directory is None:
            return
        self.present()
        statuses = [outcome.status for outcome in self._outcomes.values()]
        if self.stop.signal is not None:
            raise KeyboardInterrupt
        if failed := statuses.count("failed"):
            undone = len(statuses) - failed - sum(status in ENDED for status in statuses)
            rest = f", {undone} stopped or not run (sweep.fail_fast)" if undone else ""
            raise SweepFailed(f"{failed} of {len(statuses)} jobs failed{rest}; the same command runs them again")
        if "stopped" in statuses:
            raise SweepFailed(f"{statuses.count('stopped')} jobs were stopped; the same command goes on with them")

    def _present(self) -> None:
        assert self.directory is not None
        self.board.table(self.directory, self._jobs, self._outcomes)

    def _write(self) -> None:
        if self.directory is not None:
            record.write(self.directory, self._jobs, self._outcomes)


@contextmanager
def sweeping(console: Console) -> Iterator[Sweep]:
    """Inside, launchers find this sweep."""
    sweep = Sweep(console)
    token = _current.set(sweep)
    try:
        yield sweep
    finally:
        _current.reset(token)


def current_sweep() -> Sweep:
    """The sweep that this process runs."""
    return _current.get()
