"""From a command line to a search; and what can be known to fail about it, found before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser

from certtrain.errors import ConfigError
from certtrain.tuning.settings import TARGET, Settings, check_installed
from certtrain.tuning.space import Space


def planned(node: Mapping[str, Any], overrides: Sequence[str], loader: ConfigLoader | None) -> tuple[Settings, Space]:
    """What is searched for, and where.

    Args:
        node: hydra.sweeper, as plain containers.
        overrides: Of the task, as typed.
        loader: Knows the choices of groups, for globs.

    Raises:
        ConfigError: One line about what is wrong.
    """
    settings = Settings.of(node)
    parser = OverridesParser.create(config_loader=loader)
    typed = parser.parse_overrides(list(overrides))
    own = parser.parse_overrides([f"{key}={value}" for key, value in settings.params.items()])
    keys = {override.get_key_element() for override in typed}
    return settings, Space.of([*(o for o in own if o.get_key_element() not in keys), *typed], settings.repeat)


def is_search(node: Mapping[str, Any]) -> bool:
    """Whether the node hydra.sweeper is that of a search."""
    return str(node.get("_target_")) == TARGET


def check(
    node: Mapping[str, Any], overrides: Sequence[str], loader: ConfigLoader | None, directory: Path, validates: bool
) -> None:
    """Refuses a search that cannot run.

    Args:
        node: hydra.sweeper, as plain containers.
        overrides: Of the task, as typed.
        loader: As in `planned`.
        directory: hydra.sweep.dir.
        validates: Whether all jobs hold images out for validation.

    Raises:
        ConfigError: One line about what is wrong.
    """
    settings, space = planned(node, overrides, loader)
    check_installed()
    from certtrain.tuning.choosers import make_pruner, make_sampler
    from certtrain.tuning.results import check_continues

    make_sampler(settings)
    make_pruner(settings)
    if settings.enumerates:
        space.grid()
    if settings.needs_validation and not validates:
        raise ConfigError("hydra.sweeper: a search goes by validation images: data.validation must be more than 0")
    check_continues(directory, settings, space)
