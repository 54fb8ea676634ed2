"""Jobs of a cluster, by submitit: SLURM, or its stand-in on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from certtrain.errors import ConfigError, one_line
from certtrain.sweep import process
from certtrain.sweep.environment import for_job
from certtrain.sweep.jobs import OUTPUT, TRACEBACK, Job, Outcome
from certtrain.sweep.lines import Lines
from certtrain.sweep.runner import Runner
from certtrain.sweep.sweep import Sweep

FOLDER = ".submitit"
POLL_SECONDS = 0.5
COUNTS = ("n_jobs", "timeout_min", "nodes", "tasks_per_node", "cpus_per_task")


@dataclass(frozen=True)
class Submitit(Runner):
    """See conf/hydra/launcher/submitit.yaml.

    A job of the cluster is a process that waits for the process of a job of the sweep. With several tasks, every task
    starts one rank, and SLURM's variables tell it which. With one, the job starts its ranks by itself, and these
    variables are taken away, for they would tell it not to.
    """

    cluster: str | None
    n_jobs: int
    timeout_min: int
    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_node: int
    mem_gb: float | None
    slurm: Mapping[str, Any] | None
    side_by_side: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"hydra.launcher.{name} must be a whole number, at least 1, got {value!r}")
        if self.cluster not in (None, "slurm", "local"):
            raise ConfigError(f"hydra.launcher.cluster must be slurm, local or null, got {self.cluster!r}")
        if find_spec("submitit") is None:
            raise ConfigError('hydra/launcher=submitit needs submitit: pip install "certtrain[submitit]"')
        with TemporaryDirectory() as folder:
            try:
                self._executor(Path(folder))
            except (ValueError, TypeError, NameError, RuntimeError, AssertionError) as error:
                raise ConfigError(f"hydra.launcher: {one_line(error)}") from error

    def at_a_time(self, jobs: int | None) -> int:
        return self.n_jobs if jobs is None else max(1, min(self.n_jobs, jobs))

    def run(self, jobs: Iterable[Job], sweep: Sweep) -> None:
        assert sweep.directory is not None
        folder = sweep.directory / FOLDER
        ends = StopFile(folder / "stop")
        ends.path.unlink(missing_ok=True)
        executor = self._executor(folder)
        left, running = iter(jobs), dict[Job, tuple[Any, Lines]]()
        more = True
        while more or running:
            while more and len(running) < self.n_jobs and not sweep.stop.asked:
                if (job := next(left, None)) is None:
                    more = False
                    break
                sweep.started(job)
                task = Task(job, self.nodes * self.tasks_per_node, ends)
                running[job] = (executor.submit(task), Lines(job.directory / OUTPUT))
            if sweep.stop.asked:
                more = False
                ends.tell(sweep.stop.urgent)
                self._cancel([handle for handle, _ in running.values()])
            for job, (handle, lines) in list(running.items()):
                lines.pass_on(partial(sweep.board.said, job))
                if handle.done():
                    del running[job]
                    sweep.ended(job, _outcome(job, handle, sweep.stop.asked))
            time.sleep(POLL_SECONDS)

    def _executor(self, folder: Path) -> Any:
        # certtrain saves and ends on this one; submitit's own default would kill it.
        os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")
        import submitit

        executor = submitit.AutoExecutor(folder=folder / "%j", cluster=self.cluster)
        executor.update_parameters(
            name="certtrain",
            timeout_min=self.timeout_min,
            nodes=self.nodes,
            tasks_per_node=self.tasks_per_node,
            cpus_per_task=self.cpus_per_task,
            gpus_per_node=self.gpus_per_node,
            mem_gb=self.mem_gb,
            **{f"slurm_{key}": value for key, value in (self.slurm or {}).items()},
        )
        return executor

    def _cancel(self, handles: Sequence[Any]) -> None:
        """Takes jobs out of a queue; the stand-in has none, and its jobs look at the file."""
        for handle in handles:
            if hasattr(handle, "_cancel_command") and handle._cancel_command == "scancel":
                handle.cancel(check=False)


@dataclass(frozen=True)
class StopFile:
    """Tells processes on other machines to stop.

    Attributes:
        path: On a file system that all see.
    """

    path: Path

    def tell(self, urgent: bool) -> None:
        """Asks to stop."""
        self.path.write_text("now" if urgent else "", encoding="utf-8")

    @property
    def asked(self) -> bool:
        return self.path.exists()

    @property
    def urgent(self) -> bool:
        return self.asked and self.path.read_text(encoding="utf-8") == "now"


@dataclass(frozen=True)
class Task:
    """What the cluster runs: the process of a job, or one rank of it.

    Attributes:
        job: The job.
        ranks: Tasks of the cluster's job; more than one are the ranks of this job.
        stop: Looked at while the job runs.
    """

    job: Job
    ranks: int
    stop: StopFile

    def __call__(self) -> Outcome:
        """Runs it; called where the cluster decides."""
        import submitit

        environment = for_job(os.environ)
        if self.ranks == 1:
            return process.run(self.job, environment, self.stop, _unseen)
        own = {name: value for name, value in os.environ.items() if name.startswith("SLURM_")}
        rank = submitit.JobEnvironment().global_rank
        return process.run(self.job, {**environment, **own}, self.stop, _unseen, rank)

    def checkpoint(self) -> Any:
        """What runs after the cluster took the machine away: the same, which continues from its directory."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _unseen(line: str) -> None:
    """The output is in the directory of the job, and read from there."""


def _outcome(job: Job, handle: Any, stopped: bool) -> Outcome:
    """What became of a job of the cluster."""
    error = handle.exception()
    if error is None:
        outcomes: list[Outcome] = handle.results()
        return next((o for o in outcomes if o.status not in ("done", "stopped")), outcomes[0])
    if stopped:
        return Outcome("stopped")
    job.directory.mkdir(parents=True, exist_ok=True)
    (job.directory / TRACEBACK).write_text(f"{error}\n", encoding="utf-8")
    return Outcome("failed")
