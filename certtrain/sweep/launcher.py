"""What all launchers share: from a sweeper's overrides to jobs, and from jobs to what the sweeper gets back."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from certtrain.sweep.jobs import Job, certified_accuracy
from certtrain.sweep.runner import Runner
from certtrain.sweep.sweep import Sweep, current_sweep

# Hydra's own settings that belong to the sweep and not to a job.
OF_THE_SWEEP = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper", "hydra.sweep", "hydra.mode")
OF_THE_JOB = ("hydra.run", "hydra.job.num")


class FreshProcesses(Launcher):
    """A launcher whose jobs are command lines of their own.

    Args:
        runner: When and where they run.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.config = config

    @property
    def directory(self) -> Path:
        """Of the sweep, absolute."""
        return Path(os.path.abspath(self.config.hydra.sweep.dir))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = [self.job(initial_job_idx + i, overrides) for i, overrides in enumerate(job_overrides)]
        sweep = current_sweep()
        self.run(sweep.plan(self.directory, jobs, self.config.sweep.fail_fast), sweep, len(jobs))
        return [self._returned(job) for job in jobs]

    def run(self, jobs: Iterable[Job], sweep: Sweep, total: int | None) -> None:
        """Runs planned jobs.

        Args:
            jobs: Each is asked for when there is room for it.
            sweep: Which they were planned in.
            total: How many there will be in this sweep; None if nobody knows.
        """
        with sweep.running(self.runner.side_by_side, self.runner.at_a_time(total), total):
            self.runner.run(jobs, sweep)
        if sweep.stop.asked:
            sweep.conclude()

    def job(self, number: int, overrides: Sequence[str]) -> Job:
        """The job of some overrides."""
        composed = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        own = self.directory / subdirectory(composed, number)
        devices = OmegaConf.select(composed, "trainer.devices")
        processes = devices if isinstance(devices, int) and devices > 0 else 1
        return Job(
            number,
            tuple(overrides),
            own,
            (sys.executable, "-m", "certtrain", *self._arguments(own, number), *overrides),
            Path(str(self.config.hydra.runtime.cwd)),
            processes=processes,
            gpus=0 if OmegaConf.select(composed, "trainer.accelerator") == "cpu" else processes,
            stop_code=int(composed.preemption.exit_code),
            epochs=OmegaConf.select(composed, "trainer.max_epochs"),
            steps=OmegaConf.select(composed, "trainer.max_steps"),
        )

    def _arguments(self, directory: Path, number: int) -> list[str]:
        """What Hydra is told about a job beside its overrides."""
        folders = [
            argument
            for source in self.config.hydra.runtime.config_sources
            if source.provider == "command-line"
            for argument in ("--config-dir", source.path)
        ]
        typed = typed_overrides(self.config, "hydra")
        keys = [override.get_key_element() for override in OverridesParser.create().parse_overrides(typed)]
        kept = [t for t, k in zip(typed, keys, strict=True) if not k.startswith((*OF_THE_SWEEP, *OF_THE_JOB))]
        return [*folders, *kept, "hydra.mode=RUN", f"hydra.job.num={number}", f"hydra.run.dir={quoted(str(directory))}"]

    def _returned(self, job: Job) -> JobReturn:
        """A job that failed has no value; whether a sweeper can go on without it is the sweeper's to say."""
        value = certified_accuracy(job.directory)
        return JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=value)


def subdirectory(composed: DictConfig, number: int) -> str:
    """hydra.sweep.subdir of a job, whose number may be part of it."""
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    HydraConfig.instance().set_config(composed)  # for ${hydra:...}
    return str(composed.hydra.sweep.subdir)


def typed_overrides(config: DictConfig, kind: Literal["hydra", "task"]) -> list[str]:
    """The overrides of a composed configuration as they were typed.

    A look at the list itself would put values where interpolations stand, which a job has its own ones of.
    """
    found = OmegaConf.to_container(config.hydra.overrides[kind], resolve=False)
    assert isinstance(found, list)
    return [str(override) for override in found]


def quoted(value: str) -> str:
    """A value of an override, whatever characters it has."""
    # Backslashes mean themselves, except in front of a quote.
    text = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return "'" + text.replace("${", "\\${") + "'"
