"""What a search was asked for: the node hydra.sweeper, checked."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from certtrain.errors import ConfigError

TARGET = "hydra_plugins.certtrain_launchers.sweeper.Optuna"
DIRECTIONS = ("maximize", "minimize")
STORAGES = ("journal", "sqlite")
NO_PRUNER = "NopPruner"
GRID = "Grid"
_CONSTRAINT = re.compile(r"\s*(\S+?)\s*(>=|<=)\s*(\S+)\s*")
_HOLDS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Objective:
    """A figure that is to become as large, or as small, as possible.

    Attributes:
        key: Of metrics.jsonl or summary.json; never a figure of the test images.
        direction: Which way is better.
    """

    key: str
    direction: Literal["maximize", "minimize"]

    def __str__(self) -> str:
        """For people."""
        return f"{self.direction} {self.key}"


@dataclass(frozen=True)
class Constraint:
    """A bound that a trial has to keep; one that does not is never among the best.

    Attributes:
        key: As of an objective.
        sign: Which side is legal.
        bound: In the figure's own unit.
    """

    key: str
    sign: Literal[">=", "<="]
    bound: float

    def violation(self, value: float) -> float:
        """How far a value is on the wrong side; zero or less where the constraint holds."""
        return self.bound - value if self.sign == ">=" else value - self.bound

    def holds(self, value: float) -> bool:
        """Whether a value keeps it."""
        return _HOLDS[self.sign](value, self.bound)

    def __str__(self) -> str:
        """For people."""
        return f"{self.key} {self.sign} {self.bound:g}"


@dataclass(frozen=True)
class Settings:
    """See conf/hydra/sweeper/optuna.yaml.

    Attributes:
        n_trials: Trials in all, those of earlier calls among them; None: as many as the grid has.
        objectives: At least one.
        constraints: All have to hold.
        repeat: Keys whose values are averaged over inside a trial.
        storage: Kind of the study file.
        sampler: Target and options of what chooses.
        pruner: Target and options of what ends trials early.
        params: Swept keys beside those of the command line.
    """

    n_trials: int | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    repeat: tuple[str, ...]
    storage: str
    sampler: Mapping[str, Any]
    pruner: Mapping[str, Any]
    params: Mapping[str, Any]

    @property
    def figures(self) -> tuple[str, ...]:
        """Keys of all figures that are read, objectives first."""
        keys = [objective.key for objective in self.objectives] + [constraint.key for constraint in self.constraints]
        return tuple(dict.fromkeys(keys))

    @property
    def prunes(self) -> bool:
        """Whether trials may be ended early."""
        return not str(self.pruner["_target_"]).endswith(f".{NO_PRUNER}")

    @property
    def enumerates(self) -> bool:
        """Whether every combination is tried."""
        return str(self.sampler["_target_"]).endswith(f".{GRID}")

    @property
    def needs_validation(self) -> bool:
        """Whether a figure is one of the validation images."""
        return any(key.startswith("val/") for key in self.figures)

    @staticmethod
    def of(node: Mapping[str, Any]) -> Settings:
        """Checks the options.

        Args:
            node: hydra.sweeper without its target, as plain containers.

        Raises:
            ConfigError: One line about the first that is wrong.
        """
        options = dict(node)
        known = tuple(Settings.__dataclass_fields__)
        if missing := [name for name in known if name not in options]:
            raise ConfigError(f"hydra.sweeper: missing key '{missing[0]}'")
        if others := sorted(options.keys() - {*known, "_target_"}):
            raise ConfigError(f"hydra.sweeper: unknown key '{others[0]}': possible are {', '.join(known)}")
        found = Settings(
            n_trials=_count(options["n_trials"]),
            objectives=tuple(_objective(entry) for entry in _list("objectives", options["objectives"])),
            constraints=tuple(_constraint(entry) for entry in _list("constraints", options["constraints"])),
            repeat=tuple(str(key) for key in _list("repeat", options["repeat"])),
            storage=str(options["storage"]),
            sampler=_target("sampler", options["sampler"]),
            pruner=_target("pruner", options["pruner"]),
            params=dict(options["params"] or {}),
        )
        found._check()
        return found

    def _check(self) -> None:
        if not self.objectives:
            raise ConfigError("hydra.sweeper.objectives must have at least 1 entry, as in [val/certified_accuracy]")
        keys = [objective.key for objective in self.objectives]
        if double := next((key for key in keys if keys.count(key) > 1), None):
            raise ConfigError(f"hydra.sweeper.objectives: '{double}' stands there twice")
        if self.storage not in STORAGES:
            raise ConfigError(f"hydra.sweeper.storage must be {' or '.join(STORAGES)}, got '{self.storage}'")
        if self.n_trials is None and not self.enumerates:
            raise ConfigError("hydra.sweeper.n_trials: only hydra/sweeper/sampler=grid knows how many trials there are")
        if not self.prunes:
            return
        if len(self.objectives) > 1:
            raise ConfigError(
                "hydra.sweeper.pruner compares one figure: give one objective, others as constraints, as in "
                "hydra.sweeper.objectives=[val/certified_accuracy]"
            )
        if not keys[0].startswith("val/"):
            raise ConfigError(f"hydra.sweeper.pruner: '{keys[0]}' is not known while a job runs: choose one of val/")


def check_installed() -> None:
    """Refuses a search without Optuna.

    Raises:
        ConfigError: If it is not installed.
    """
    if find_spec("optuna") is None:
        raise ConfigError('hydra/sweeper=optuna needs Optuna: pip install "certtrain[optuna]"')


def _count(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ConfigError(f"hydra.sweeper.n_trials must be a whole number, at least 1, got {value!r}")


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"hydra.sweeper.{name} must be a list, as in [a,b], got {value!r}")
    return list(value)


def _objective(entry: Any) -> Objective:
    if isinstance(entry, str) and entry.endswith("accuracy"):
        entry = {entry: "maximize"}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ConfigError(
            f"hydra.sweeper.objectives: {entry!r} does not say which way is better, as {{{entry}:minimize}} does"
            if isinstance(entry, str)
            else f"hydra.sweeper.objectives: {entry!r} is no key with a direction, as in {{train_seconds:minimize}}"
        )
    ((key, direction),) = entry.items()
    if direction not in DIRECTIONS:
        raise ConfigError(f"hydra.sweeper.objectives: {key} must be {' or '.join(DIRECTIONS)}, got {direction!r}")
    _check_key("objectives", str(key))
    return Objective(str(key), direction)


def _constraint(entry: Any) -> Constraint:
    found = _CONSTRAINT.fullmatch(str(entry))
    try:
        key, sign, bound = found.groups() if found else ("", "", "nan")
        value = float(bound)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(
            f"hydra.sweeper.constraints: '{entry}' is none: write ['val/natural_accuracy>=0.9'], with >= or <="
        )
    _check_key("constraints", key)
    return Constraint(key, sign, value)  # type: ignore[arg-type]


def _target(name: str, node: Any) -> Mapping[str, Any]:
    if not isinstance(node, dict) or "_target_" not in node:
        raise ConfigError(f"hydra.sweeper.{name} must be a choice of hydra/sweeper/{name}, got {node!r}")
    return node


def _check_key(option: str, key: str) -> None:
    from certtrain.tuning.figures import check_key  # with torch, which commands that only compose do without

    check_key(option, key)
