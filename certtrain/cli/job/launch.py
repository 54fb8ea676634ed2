"""Hands a checked command to Hydra."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from certtrain.cli.configuration.compose import CONFIG, Command, hydra_for, with_configured_sweep
from certtrain.cli.job.announce import announce
from certtrain.cli.job.failure import keeping_traceback
from certtrain.cli.process.heartbeat import Heartbeat
from certtrain.cli.process.imports import import_torchmetrics
from certtrain.cli.process.memory import keep_freed_memory
from certtrain.cli.process.output import while_somebody_reads
from certtrain.cli.rundir.recorded import as_command
from certtrain.files import naming
from certtrain.sweep.launcher import quoted
from certtrain.sweep.sweep import sweeping


def launch(found: argparse.Namespace) -> None:
    """Runs a command line: alone, or as one of the processes that torchrun, srun and the like have started for it.

    Of several processes the first one checks the command, has Hydra make the run directory and tells the others; they
    neither print nor write.

    Args:
        found: What `read_arguments` has read.

    Raises:
        CerttrainError: If a job cannot run, or failed.
        SystemExit: In the others, if the first one refused the command.
    """
    if not started_by_a_launcher(os.environ):
        _launch(found)
        return
    import_torchmetrics()
    from certtrain.cli.job import cluster

    environment = cluster.detect()
    if environment is None:
        _launch(found)
        return
    cluster.join(environment)
    if environment.global_rank() == 0:
        _launch(found)
    else:
        _follow()


def started_by_a_launcher(environment: Mapping[str, str]) -> bool:
    """Whether a look at the launchers, which takes torch, is worth its time."""
    return any(name.startswith(("TORCHELASTIC_", "SLURM_", "LSB_", "OMPI_", "PMI_")) for name in environment)


def _follow() -> None:
    """A rank other than the first one: does what it is told."""
    from certtrain.cli.job import cluster
    from certtrain.cli.job.entry import run_in

    orders = cluster.hear()
    if orders is None:
        return
    keep_freed_memory()
    with keeping_traceback(orders.directory):
        run_in(orders.directory, orders.node)


def _tell_failures(directory: Path | None) -> None:
    """Ends a command whose run has finished as the run itself did."""
    from certtrain.report import check_failures, read_summary

    if directory is not None:
        check_failures(read_summary(directory / "summary.json"))


def _dismiss() -> None:
    """Tells the other ranks, if there are any, that nothing is left to do."""
    if started_by_a_launcher(os.environ):
        from certtrain.cli.job import cluster

        cluster.tell(None)


def _launch(found: argparse.Namespace) -> None:
    """Preflight, then one job or a sweep."""
    command = as_command(found)
    if command.inspects:
        from certtrain.cli.help.inspection import inspect

        with while_somebody_reads():
            inspect(found, command)
        return
    with Heartbeat(Console()).during("checking the configuration"):
        import_torchmetrics()
        from certtrain.cli.job.preflight import preflight

        sweep = with_configured_sweep(command)
        place = preflight(sweep)
    if place.finished and place.directory is not None:
        announce(place.directory)
        print(f"{place.directory} has finished: see its report.html; another hydra.run.dir runs it again")
        _dismiss()
        _tell_failures(place.directory)
        return
    if place.note is not None:
        print(f"note: {place.note}")
    # The last one of several overrides counts.
    going_on = () if place.directory is None else (f"hydra.run.dir={quoted(str(place.directory))}",)
    keep_freed_memory()
    if sweep.multirun:
        _run_sweep(command)
    else:
        _run_alone(command, going_on)


def _run_sweep(command: Command) -> None:
    with sweeping(Console()) as sweep, hydra_for(command) as app:
        app.multirun(CONFIG, _job, [*command.overrides, "hydra.mode=MULTIRUN"])
        sweep.conclude()


def _run_alone(command: Command, going_on: tuple[str, ...]) -> None:
    with hydra_for(command) as app:
        _finish(_run(app, [*command.overrides, *going_on, "hydra.mode=RUN"]))


def _run(app: Hydra, overrides: list[str]) -> JobReturn:
    """What Hydra's `run` does, but for the last step: it prints the overrides before it raises what the job raised."""
    config = app.compose_config(CONFIG, overrides, RunMode.RUN, with_log_configuration=True)
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name=CONFIG)
    context = HydraContext(config_loader=app.config_loader, callbacks=callbacks)
    with naming(Path(str(OmegaConf.select(config, "hydra.run.dir")))):
        done = run_job(
            task_function=_job, config=config, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context
        )
    callbacks.on_run_end(config=config, config_name=CONFIG, job_return=done)
    return done


def _finish(done: JobReturn) -> None:
    if done.status is JobStatus.FAILED:
        raise done._return_value


def _job(composed: DictConfig) -> float | None:
    from certtrain.cli.configuration.schema import plain
    from certtrain.cli.job.entry import run  # after preflight: showing a configuration needs no torch
    from certtrain.cli.rundir.code import remember_code, tell_changes

    directory = Path(HydraConfig.get().runtime.output_dir)
    announce(directory)
    with keeping_traceback(directory):
        remember_code(directory, plain(composed))
        tell_changes(directory)
        return run(composed)
