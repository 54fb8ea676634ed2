"""Hands a checked command to Hydra."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from certtrain._paths import config_dir
from certtrain.cli.compose import explain, parse_command, with_configured_sweep
from certtrain.cli.failure import keeping_traceback
from certtrain.cli.heartbeat import Heartbeat
from certtrain.cli.memory import keep_freed_memory
from certtrain.errors import ConfigError
from certtrain.sweep.launcher import quoted
from certtrain.sweep.sweep import sweeping


def launch(arguments: list[str]) -> None:
    """Runs a command line: alone, or as one of the processes that torchrun, srun and the like have started for it.

    Of several processes the first one checks the command, has Hydra make the run directory and tells the others; they
    neither print nor write.

    Raises:
        CerttrainError: If a job cannot run, or failed.
        SystemExit: In the others, if the first one refused the command.
    """
    if not started_by_a_launcher(os.environ):
        _launch(arguments)
        return
    from certtrain.cli import cluster

    environment = cluster.detect()
    if environment is None:
        _launch(arguments)
        return
    cluster.join(environment)
    if environment.global_rank() == 0:
        _launch(arguments)
    else:
        _follow()


def started_by_a_launcher(environment: Mapping[str, str]) -> bool:
    """Whether a look at the launchers, which takes torch, is worth its time."""
    return any(name.startswith(("TORCHELASTIC_", "SLURM_", "LSB_", "OMPI_", "PMI_")) for name in environment)


def _follow() -> None:
    """A rank other than the first one: does what it is told."""
    from certtrain.cli import cluster
    from certtrain.cli.job import run_in

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
        from certtrain.cli import cluster

        cluster.tell(None)


def _register_launchers() -> None:
    """Tells Hydra of our launchers, which its own search does not find where certtrain is installed to be edited."""
    from hydra.core.plugins import Plugins

    from hydra_plugins.certtrain_launchers import Basic, Joblib, Submitit

    for launcher in (Basic, Joblib, Submitit):
        Plugins.instance().register(launcher)


def _launch(arguments: list[str]) -> None:
    """Preflight, then one job or a sweep."""
    _register_launchers()
    command = parse_command(arguments)
    if not command.inspects:
        with Heartbeat(Console()).during("checking the configuration"):
            from certtrain.cli.preflight import preflight

            place = preflight(with_configured_sweep(command))
        if place.finished:
            print(f"{place.directory} has finished: see its report.html; another hydra.run.dir runs it again")
            _dismiss()
            _tell_failures(place.directory)
            return
        if place.directory is not None:
            # Hydra reads the command line itself; the last one of several overrides counts.
            sys.argv.append(f"hydra.run.dir={quoted(str(place.directory))}")
        keep_freed_memory()
    with sweeping(Console()) as sweep:
        try:
            hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(_job)()
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error)) from error
        sweep.conclude()


def _job(composed: DictConfig) -> float | None:
    from certtrain.cli.job import run  # after preflight: showing a configuration needs no torch

    with keeping_traceback(Path(HydraConfig.get().runtime.output_dir)):
        return run(composed)
