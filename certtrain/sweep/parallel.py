"""Several jobs side by side on this machine, by joblib; each has GPUs of its own as long as there are enough."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import ClassVar

from certtrain.errors import ConfigError
from certtrain.sweep import process
from certtrain.sweep.environment import cores, for_job
from certtrain.sweep.gpus import Gpus, visible_gpus
from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.runner import Runner
from certtrain.sweep.sweep import Sweep


@dataclass(frozen=True)
class Joblib(Runner):
    """See conf/hydra/launcher/joblib.yaml.

    joblib's threads only wait for the processes of the jobs.

    Attributes:
        n_jobs: Jobs at a time; negative counts back from the number of cores, as joblib does.
    """

    n_jobs: int
    side_by_side: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.n_jobs, int) or isinstance(self.n_jobs, bool) or self.n_jobs == 0:
            raise ConfigError(
                f"hydra.launcher.n_jobs must be a whole number but 0 (-1: all cores), got {self.n_jobs!r}"
            )
        if find_spec("joblib") is None:
            raise ConfigError('hydra/launcher=joblib needs joblib: pip install "certtrain[joblib]"')

    def at_a_time(self, jobs: int | None) -> int:
        wanted = self.n_jobs if self.n_jobs > 0 else max(1, cores() + 1 + self.n_jobs)
        return wanted if jobs is None else max(1, min(wanted, jobs))

    def run(self, jobs: Iterable[Job], sweep: Sweep) -> None:
        from joblib import Parallel, delayed

        at_a_time = self.at_a_time(len(jobs) if isinstance(jobs, Sized) else None)
        left, one = iter(jobs), threading.Lock()

        @cache
        def gpus() -> Gpus:
            return Gpus(visible_gpus(os.environ))

        def taken(job: Job) -> AbstractContextManager[dict[str, str]]:
            if not job.gpus:
                return nullcontext({})
            with one:  # two threads would count twice
                found = gpus()
            return found.taken(job.gpus)

        # A search chooses a job when it is taken: nothing here may look at all of them.
        def run_one(job: Job) -> Outcome:
            with taken(job) as own:
                environment = {**for_job(os.environ, at_a_time, job.processes), **own}
                return process.run(job, environment, sweep.stop, partial(sweep.board.said, job))

        def take() -> Job | None:
            with one:
                return None if sweep.stop.asked else next(left, None)

        def work() -> None:
            while (job := take()) is not None:
                sweep.run(job, run_one)

        Parallel(n_jobs=at_a_time, backend="threading", batch_size=1)(delayed(work)() for _ in range(at_a_time))
