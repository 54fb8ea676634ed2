"""What Hydra would run for a command line, found out before Hydra creates anything."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from certtrain._paths import config_dir
from certtrain.errors import ConfigError
from certtrain.sweep import plugins

# Nodes whose keys are the arguments of a target.
OPEN_NODES = ("model", "loss", "optimizer", "scheduler")


@dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
        overrides: As typed; a folder given as --config-dir stands among them as Hydra's search path.
        multirun: Whether it is a sweep.
        inspects: Whether Hydra is only asked to show something.
    """

    overrides: tuple[str, ...]
    multirun: bool
    inspects: bool


def parse_command(arguments: list[str]) -> Command:
    """Reads Hydra's command line the way Hydra does.

    Raises:
        ConfigError: If it asks for another configuration than certtrain's.
    """
    found = get_args_parser().parse_args(arguments)
    if found.config_path or found.config_name or found.experimental_rerun:
        raise ConfigError("--config-path, --config-name and --experimental-rerun are not supported: use --config-dir")
    inspects = bool(found.cfg or found.info or found.hydra_help or found.shell_completion or found.help)
    own = [f"hydra.searchpath=[file://{Path(found.config_dir).resolve()}]"] if found.config_dir else []
    return Command((*own, *found.overrides), bool(found.multirun), inspects)


def with_configured_sweep(command: Command) -> Command:
    """The command with what its configuration adds: the mode and the parameters of a sweep.

    Raises:
        ConfigError: If an override does not parse.
    """
    with _composing():
        fixed = [str(o.input_line) for o in _parsed(command) if not o.is_sweep_override()]
        try:
            node = compose("config", fixed, return_hydra_config=True).hydra
        except (HydraException, OmegaConfBaseException):
            return command  # perhaps the swept values are what makes it complete; if not, the jobs will tell
        if not command.multirun and node.mode != RunMode.MULTIRUN:
            return command
        params = node.sweeper.get("params") if "BasicSweeper" in str(node.sweeper.get("_target_")) else None
        added = [f"{key}={value}" for key, value in (params or {}).items()]
        return replace(command, overrides=(*added, *command.overrides), multirun=True)


def compose_jobs(command: Command) -> Iterator[DictConfig]:
    """The composed configuration, node `hydra` included, of every job of the command.

    A sweeper that chooses values as it goes has no list of jobs: the ends of intervals and every listed value are
    composed, one after the other.

    Raises:
        ConfigError: If an override does not parse, names a key or a choice that does not exist, or is ambiguous.
    """
    with _composing():
        parsed = _parsed(command)
        intervals = [override for override in parsed if isinstance(override.value(), IntervalSweep)]
        for overrides in _expand(command, parsed):
            composed = compose("config", list(overrides), return_hydra_config=True)
            if intervals and "BasicSweeper" in str(composed.hydra.sweeper.get("_target_")):
                raise ConfigError(f"'{intervals[0].input_line}': only lists of values can be swept, not intervals")
            yield composed


@contextmanager
def _composing() -> Iterator[None]:
    plugins.take_places()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            yield
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error)) from error


def _parsed(command: Command) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()  # globs look up the choices of a group
    return OverridesParser.create(config_loader=loader).parse_overrides(list(command.overrides))


def _expand(command: Command, parsed: list[Override]) -> list[tuple[str, ...]]:
    """One tuple of overrides per job."""
    swept = [override for override in parsed if override.is_sweep_override()]
    if not command.multirun:
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


def explain(error: Exception) -> str:
    """One line for what Hydra says in several."""
    text = "\n".join(filter(None, [str(error), str(error.__cause__ or "")]))
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, choice = found.groups()
        legal = sorted(file.stem for file in (config_dir() / group).glob("*.yaml"))
        possible = ", ".join(legal) or "none that certtrain brings along: is its plugin installed?"
        return f"unknown {group} '{choice}': possible are {possible}{_closest(choice, legal)}"
    if "Lexer" in text or "token recognition error" in text:
        return f"{text.splitlines()[0]}: quote values with special characters, as in 'key=\"~/folder\"'"
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found.group(1)
        if "/" in key and (config_dir() / key).is_dir():
            return f"unknown group '{key}' here: it needs method={key.split('/')[0]}"
        if key.split(".")[0] in OPEN_NODES and "." in key:
            return f"unknown key '{key}': if the {key.split('.')[0]} takes it, write +{key}=..."
        if (config_dir() / key).is_dir():
            return f"{key} is chosen as {key}=<choice>, once"
        return _unknown_key(key)
    if found := re.search(r"Key '[^']+' is not in struct\s+full_key: (\S+)", text):
        return _unknown_key(found.group(1))
    return " ".join(line.strip() for line in text.splitlines()[:2] if line.strip())


def _unknown_key(key: str) -> str:
    return f"unknown key '{key}'{_closest(key, _all_keys()) or ': --cfg job shows all'}"


def _closest(word: str, legal: list[str]) -> str:
    """A hint at what may have been meant; a node that belongs to a method names it."""
    node = word.split(".")[0]
    methods = [file.stem for file in (config_dir() / "method").glob("*.yaml")]
    close = difflib.get_close_matches(word, legal, n=1)
    if node in methods and word in legal:
        return f" here: it needs method={node}"
    return f"; did you mean {close[0]}?" if close else ""


def _all_keys() -> list[str]:
    """Dotted keys of the default configuration and of every method's own node."""
    keys: set[str] = set()
    for method in (file.stem for file in (config_dir() / "method").glob("*.yaml")):
        keys.update(_dotted(OmegaConf.to_container(compose("config", [f"method={method}"])), ""))
    return sorted(keys)


def _dotted(node: Any, prefix: str) -> Iterator[str]:
    if not isinstance(node, dict):
        yield prefix.removesuffix(".")
        return
    for key, value in node.items():
        yield from _dotted(value, f"{prefix}{key}.")
