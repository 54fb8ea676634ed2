"""certtrain's sweeper, where Hydra looks for plugins; the parts that it is made of are in certtrain.tuning."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class Optuna(Sweeper):
    """See conf/hydra/sweeper/optuna.yaml."""

    def __init__(self, **options: Any) -> None:
        self.options = {name: _plain(value) for name, value in options.items()}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from certtrain.sweep.launcher import FreshProcesses
        from certtrain.sweep.sweep import current_sweep
        from certtrain.tuning.plan import planned
        from certtrain.tuning.search import search

        assert self.hydra_context is not None
        assert self.config is not None
        assert isinstance(self.launcher, FreshProcesses)
        settings, space = planned(self.options, arguments, self.hydra_context.config_loader)
        search(settings, space, self.launcher, current_sweep(), bool(self.config.sweep.fail_fast))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
