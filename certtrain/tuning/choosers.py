"""Samplers, which choose, and pruners, which end trials early: Optuna's, made of what the configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from certtrain.errors import ConfigError, one_line
from certtrain.tuning.settings import Settings

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

# Attribute of a trial: how far it is on the wrong side of each constraint.
VIOLATIONS = "violations"


def make_sampler(settings: Settings, begun: int = 0) -> BaseSampler:
    """What chooses.

    Args:
        settings: Of the search.
        begun: Trials that have begun: another state of its random numbers for every one of them.

    Raises:
        ConfigError: If an option is none.
    """
    from optuna.trial import Trial

    options = dict(settings.sampler)
    if isinstance(options.get("seed"), int):
        options["seed"] += begun
    if settings.constraints and not hasattr(Trial, "set_constraint"):
        options = _with_constraints(options)
    found: BaseSampler = _made("sampler", options)
    return found


def make_pruner(settings: Settings) -> BasePruner:
    """What ends trials early.

    Raises:
        ConfigError: If an option is none.
    """
    found: BasePruner = _made("pruner", dict(settings.pruner))
    return found


def _with_constraints(options: dict[str, Any]) -> dict[str, Any]:
    """Optuna 4: samplers that take constraints ask for those of each trial."""
    from inspect import signature

    from hydra.utils import get_class

    if "constraints_func" not in signature(get_class(str(options["_target_"]))).parameters:
        return options
    return {**options, "constraints_func": _violations}


def _violations(trial: FrozenTrial) -> Sequence[float]:
    found: Sequence[float] = trial.user_attrs.get(VIOLATIONS, [])
    return found


def _made(name: str, options: dict[str, Any]) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an option of Optuna is experimental is for its documentation
        try:
            return instantiate(options)
        except Exception as error:
            cause = error.__cause__ or error
            raise ConfigError(f"hydra.sweeper.{name}: {one_line(cause)}") from error
