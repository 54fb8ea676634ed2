"""The launchers that run sweeps, the sweeper that searches, and their places in Hydra.

Hydra finds the plugins themselves in the package `hydra_plugins`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from certtrain.errors import ConfigError
from certtrain.sweep.basic import Basic
from certtrain.sweep.parallel import Joblib
from certtrain.sweep.runner import Runner
from certtrain.sweep.slurm import Submitit

RUNNERS: dict[str, type[Runner]] = {"basic": Basic, "joblib": Joblib, "submitit": Submitit}
# conf/hydra/sweeper/optuna.yaml.
SWEEPER = "optuna"


def take_places() -> None:
    """Lets conf/hydra stand for Hydra's own launchers and sweepers, and those of plugins, of the same names.

    Hydra's basic launcher runs all jobs in one process. A stored configuration would be merged with a file of its name.
    Hydra's own search does not find ours where certtrain is installed to be edited.
    """
    from hydra_plugins import certtrain_launchers as own
    from hydra_plugins.certtrain_launchers.sweeper import Optuna

    known = Plugins.instance()  # whose discovery is what stores them
    for plugin in (own.Basic, own.Joblib, own.Submitit, Optuna):
        known.register(plugin)
    stored = ConfigStore.instance().repo["hydra"]
    for name in RUNNERS:
        stored["launcher"].pop(f"{name}.yaml", None)
    stored["sweeper"].pop(f"{SWEEPER}.yaml", None)


def check(node: Mapping[str, Any]) -> None:
    """Checks the node hydra.launcher.

    Raises:
        ConfigError: One line about what is wrong.
    """
    runner_of(node)


def runner_of(node: Mapping[str, Any]) -> tuple[str, Runner]:
    """The choice that a node hydra.launcher is of, and what runs jobs there.

    Raises:
        ConfigError: One line about what is wrong.
    """
    options = dict(node)
    target = str(options.pop("_target_", None))
    for name, runner in RUNNERS.items():
        if target == f"hydra_plugins.certtrain_launchers.{runner.__name__}":
            return name, runner(**options)
    raise ConfigError(f"hydra.launcher: the jobs of a sweep are run by {', '.join(RUNNERS)}, not by {target}")
