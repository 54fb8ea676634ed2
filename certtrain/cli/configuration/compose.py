"""What Hydra would run for a command line, found out before Hydra creates anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hydra import compose, version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from hydra.types import RunMode
from omegaconf import DictConfig

from certtrain._paths import config_dir
from certtrain.cli.configuration.explain import (
    LIBRARY_ERRORS,
    choices_of,
    explain,
    explaining,
    not_text,
    switched_off,
    unknown_choice,
)
from certtrain.cli.configuration.facts import register
from certtrain.errors import ConfigError
from certtrain.sweep import plugins
from certtrain.tuning.plan import is_search

CONFIG = "config"
# Groups of which several choices can be made at once.
SEVERAL = ("logger",)


@dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
        overrides: As typed; see `replace_targets`.
        multirun: Whether it is a sweep.
        inspects: Whether Hydra is only asked to show something.
        config_dir: A folder with choices beside those of certtrain, absolute; None for none.
        composed: What Hydra makes of the one job of this command, where that is known already: it takes a while.
    """

    overrides: tuple[str, ...]
    multirun: bool
    inspects: bool
    config_dir: Path | None = None
    composed: DictConfig | None = field(default=None, compare=False, repr=False)


@contextmanager
def hydra_for(command: Command) -> Iterator[Hydra]:
    """Inside, Hydra composes from certtrain's configuration and the folder that the command names.

    The folder is handed over as a path. As an override (hydra.searchpath) it would have to survive a grammar.

    Raises:
        ConfigError: One line for what Hydra says of the command.
    """
    plugins.take_places()
    version.setbase("1.3")
    register()
    search = create_config_search_path(str(config_dir()))
    if command.config_dir is not None:
        # As Hydra itself has it, so that a sweep finds the folder among the sources by this name.
        search.prepend("command-line", f"file://{command.config_dir}", SearchPathQuery(provider="schema"))
    before = get_gh_backup()
    app = Hydra.create_main_hydra2("certtrain", search)
    try:
        with explaining():
            yield app
    finally:
        restore_gh_from_backup(before)


def with_configured_sweep(command: Command) -> Command:
    """The command with what its configuration adds: the mode and the parameters of a sweep.

    Raises:
        ConfigError: If an override does not parse, or a group is given no choice.
    """
    with hydra_for(command):
        fixed = [str(o.input_line) for o in parsed_overrides(command) if not o.is_sweep_override()]
        try:
            composed = compose(CONFIG, fixed, return_hydra_config=True)
        except (*LIBRARY_ERRORS, ValueError):
            return command  # perhaps the swept values are what makes it complete; if not, the jobs will tell
        node = composed.hydra
        if not command.multirun and node.mode != RunMode.MULTIRUN:
            return command if len(fixed) < len(command.overrides) else replace(command, composed=composed)
        own = "BasicSweeper" in str(node.sweeper.get("_target_")) or is_search(node.sweeper)
        params = (node.sweeper.get("params") if own else None) or {}
        typed = {o.get_key_element() for o in parsed_overrides(command)} if is_search(node.sweeper) else set()
        added = [f"{key}={value}" for key, value in params.items() if key not in typed]
        return replace(command, overrides=(*added, *command.overrides), multirun=True)


def compose_jobs(command: Command) -> Iterator[DictConfig]:
    """The composed configuration, node `hydra` included, of every job of the command.

    A sweeper that chooses values as it goes has no list of jobs: the ends of intervals and every listed value are
    composed, one after the other.

    Raises:
        ConfigError: If an override does not parse, names a key or a choice that does not exist, or is ambiguous.
    """
    if command.composed is not None:
        yield command.composed
        return
    with hydra_for(command):
        parsed = parsed_overrides(command)
        intervals = [override for override in parsed if isinstance(override.value(), IntervalSweep)]
        for overrides in _expand(command, parsed):
            composed = _composed(command, overrides)
            if intervals and "BasicSweeper" in str(composed.hydra.sweeper.get("_target_")):
                raise ConfigError(f"'{intervals[0].input_line}': only lists of values can be swept, not intervals")
            yield composed


def _composed(command: Command, overrides: tuple[str, ...]) -> DictConfig:
    try:
        return compose(CONFIG, list(overrides), return_hydra_config=True)
    except UnicodeDecodeError as error:
        file = None if command.config_dir is None else not_text(command.config_dir)
        raise ConfigError(f"{file or 'a configuration file'} is not UTF-8: {error.reason}") from error
    except ValueError as error:  # Hydra's own, of files that hold something else than a configuration
        raise ConfigError(explain(error)) from error


def parsed_overrides(command: Command) -> list[Override]:
    """The overrides of a command, parsed; inside `hydra_for`.

    Raises:
        ConfigError: If a group is given something that is no choice.
    """
    loader = GlobalHydra.instance().config_loader()  # globs look up the choices of a group
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(command.overrides))
    for override in parsed:
        _check_choice(override)
    return parsed


def _check_choice(override: Override) -> None:
    """Refuses what is neither a choice of a group nor a value of a key, where Hydra speaks of Python's types."""
    key, value, line = override.key_or_group, override.value(), override.input_line
    if not key:
        raise ConfigError(f"'{line}': the key is missing")
    group = key.replace(".", "/")
    if group != key and isinstance(value, str) and (config_dir() / group).is_dir():
        raise ConfigError(f"'{line}': {group} is a group, whose choice is written {group}={value}")
    named = isinstance(value, list) and all(isinstance(name, str) for name in value)
    if key in SEVERAL and isinstance(value, list) and named:
        for name in value:
            if name not in choices_of(key):
                raise ConfigError(unknown_choice(key, name))
    if isinstance(value, (str, dict)) or named or override.is_delete() or override.is_sweep_override():
        return
    if (config_dir() / key).is_dir():
        choices = "|".join(choices_of(key))
        hint = f"a group is given a choice: {key}={choices}" if choices else f"set its keys, as in {key}.key=value"
        hint += switched_off(key)
        raise ConfigError(f"'{line}': {hint}")


def _expand(command: Command, parsed: list[Override]) -> list[tuple[str, ...]]:
    """One tuple of overrides per job."""
    swept = [override for override in parsed if override.is_sweep_override()]
    if not command.multirun:
        if swept and swept[0].key_or_group in SEVERAL:
            line = str(swept[0].input_line)
            raise ConfigError(f"'{line}': several at once are a list: {line.replace('=', '=[', 1)}]")
        if swept:
            raise ConfigError(f"'{swept[0].input_line}' has several values: add -m to run each")
        return [tuple(str(override.input_line) for override in parsed)]
    own = tuple(str(override.input_line) for override in parsed if override.is_hydra_override())
    task = [override for override in parsed if not override.is_hydra_override()]
    if all(override.is_discrete_sweep() for override in swept) and not any("hydra/sweeper=" in o for o in own):
        return [(*own, *job) for job in BasicSweeper.split_arguments(task, None)[0]]
    values = [_values(override) for override in task]
    first = [choices[0] for choices in values]
    others = [(*first[:i], other, *first[i + 1 :]) for i, choices in enumerate(values) for other in choices[1:]]
    return [(*own, *job) for job in (first, *others)]


def _values(override: Override) -> list[str]:
    """What an override may become, each as an override."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    if override.is_sweep_override():
        return [f"{key}={choice}" for choice in override.sweep_string_iterator()]
    return [str(override.input_line)]
