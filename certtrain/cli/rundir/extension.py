"""More epochs for a run that is there: which changes go on as if it had always been told so, and which do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from certtrain.cli.configuration.schema import Node
from certtrain.cli.rundir.directory import Change, RunDirectory
from certtrain.errors import ConfigError
from certtrain.training.checkpoints import read_checkpoint
from certtrain.training.schedules import HORIZONS
from certtrain.training.survival import newest

# What a run may be told when it goes on.
EPOCHS, STEPS = "trainer.max_epochs", "trainer.max_steps"
# Averages of weights for which it does not count how long the run is.
FREE_AVERAGES = ("NoAverage", "Ema")


def check_extension(run: RunDirectory, node: Node, changes: Sequence[Change]) -> str:
    """Whether a run with more epochs ends like one that was told so in the beginning.

    Args:
        run: The run.
        node: The configuration that it would go on with.
        changes: Where that differs from its own, in nothing but the number of epochs and steps.

    Returns:
        One line about what changes, and why that is sound.

    Raises:
        ConfigError: One line about why it is not.
    """
    said = ", ".join(f"{change.key} {_shown(change.there)} -> {_shown(change.here)}" for change in changes)
    for change in changes:
        if not _grows(change.there, change.here):
            raise ConfigError(f"resume={run.path}: {said}: a run that is there can only be given more")
    planned = ", ".join(_depending_on_length(node))
    if planned:
        raise ConfigError(
            f"resume={run.path}: {said}: {planned} was planned for the length that the run had, so it would not be the "
            f"run of that many epochs; fork={run.path} begins a new one with its weights"
        )
    if _has_lost_patience(run, node):
        raise ConfigError(f"resume={run.path}: {said}: stop.patience={node['stop']['patience']} has ended the run")
    limit, reached = node["trainer"]["max_steps"], _step(run)
    if reached is not None and 0 < limit <= reached:
        raise ConfigError(f"resume={run.path}: {said}: {STEPS}={limit} has ended the run: raise it, too")
    return f"{said}: learning rate, eps and batches of a step do not depend on the length of the run"


def _grows(there: Any, here: Any) -> bool:
    unlimited = [isinstance(value, int) and value == -1 for value in (there, here)]
    return unlimited[1] or (not unlimited[0] and isinstance(here, int) and here > there)


def _shown(value: Any) -> str:
    return "unlimited" if value == -1 else str(value)


def _depending_on_length(node: Node) -> Iterator[str]:
    scheduler = node["scheduler"]
    for name in HORIZONS:
        if name in scheduler and scheduler[name] is None:
            yield f"the learning rate ({str(scheduler['_target_']).rpartition('.')[2]})"
    rule = (node.get("pgpe") or {}).get("sigma_rule") or {}
    if "generations" in rule and rule["generations"] is None:
        yield "sigma (pgpe.sigma_rule.generations=null)"
    average = str((node.get("average") or {}).get("_target_", "NoAverage")).rpartition(".")[2]
    if average not in FREE_AVERAGES:
        yield f"the average of weights ({average})"


def _has_lost_patience(run: RunDirectory, node: Node) -> bool:
    validations = (node.get("stop") or {}).get("patience")
    last = newest(run.checkpoints)
    if validations is None or last is None:
        return False
    waited = (read_checkpoint(last).get("callbacks") or {}).get("Patience", {}).get("waited", 0)
    return bool(waited >= validations)


def _step(run: RunDirectory) -> int | None:
    last = newest(run.checkpoints)
    return None if last is None else int(read_checkpoint(last, mmap=True)["global_step"])
