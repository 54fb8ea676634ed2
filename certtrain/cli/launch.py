"""Hands a checked command to Hydra."""

from __future__ import annotations

import sys

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from certtrain._paths import config_dir
from certtrain.cli.compose import explain, parse_command, quoted
from certtrain.cli.memory import keep_freed_memory
from certtrain.errors import ConfigError


def launch(arguments: list[str]) -> None:
    """Preflight, then one job or a sweep.

    Raises:
        CerttrainError: If a job cannot run, or failed.
    """
    command = parse_command(arguments)
    if not command.inspects:
        from certtrain.cli.preflight import preflight

        place = preflight(command)
        if place.finished:
            print(f"{place.directory} has finished: see its report.html; another hydra.run.dir runs it again")
            return
        if place.directory is not None:
            # Hydra reads the command line itself; the last one of several overrides counts.
            sys.argv.append(f"hydra.run.dir={quoted(str(place.directory))}")
        keep_freed_memory()
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(_job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def _job(composed: DictConfig) -> float | None:
    from certtrain.cli.job import run  # after preflight: showing a configuration needs no torch

    return run(composed)
