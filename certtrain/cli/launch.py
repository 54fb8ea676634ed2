"""Hands a checked command to Hydra."""

from __future__ import annotations

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
from certtrain.cli.memory import keep_freed_memory
from certtrain.errors import ConfigError
from certtrain.sweep.sweep import sweeping


def launch(arguments: list[str]) -> None:
    """Preflight, then one job or a sweep.

    Raises:
        CerttrainError: If a job cannot run, or failed.
    """
    command = parse_command(arguments)
    if not command.inspects:
        from certtrain.cli.preflight import preflight

        preflight(with_configured_sweep(command))
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
