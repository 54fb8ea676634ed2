"""One line for what Hydra and OmegaConf say in several, or say of something that nobody typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from certtrain._paths import config_dir
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean, did_you_mean_key

# Nodes whose keys are the arguments of a target.
OPEN_NODES = ("model", "loss", "optimizer", "scheduler")
# Groups that can be switched off, and how.
OFF = {"certify": "certify.enabled=false certifies nothing"}
# What to type for something of one's own, which is no choice of these groups.
OWN = {
    "model": "a network of yours is model._target_={name}",
    "loss": "a loss of yours is loss._target_={name}",
    "data": "data of yours are data=folder data.path=FOLDER or data=arrays data.path=FILE.npz",
}
# Choices that are listed; of more, where to look.
LISTED = 20
# Lines that OmegaConf adds to its messages.
_DETAILS = ("full_key:", "object_type=", "reference_type=", "See https://")
_MEASURING = re.compile(r"^(?:Config|Data)Error raised while resolving interpolation: ")
LIBRARY_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)


@contextmanager
def explaining() -> Iterator[None]:
    """Inside, what Hydra refuses is a ConfigError of one line."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        raise ConfigError(explain(error)) from error


def explain(error: Exception) -> str:
    """One line about an error of Hydra or OmegaConf; while Hydra is composing, with hints at what exists."""
    if isinstance(error, OverrideParseException):
        return _unparsed(error.override)
    text = "\n".join(filter(None, [str(error), str(error.__cause__ or "")]))
    text = _MEASURING.sub("", text)  # our own words follow: see `certtrain.cli.configuration.facts`
    if found := re.search(r"Could not find '([^']+)/([^'/]*)'", text):
        return unknown_choice(*found.groups())
    absent = re.search(r"Key '[^']+' is not in struct\s+full_key: (\S+)", text)
    if found := re.search(r"Could not override '([^']+)'", text):
        # A dictionary is given to a node; what is wrong is a key inside.
        inside = absent is not None and absent.group(1).startswith(f"{found.group(1)}.")
        return _unknown_key(absent.group(1)) if absent and inside else _no_such_key(found.group(1))
    if absent:  # asked for by the command itself: it was deleted
        return f"missing key '{absent.group(1)}'"
    if found := re.search(r"already at '([^']+)'", text):
        return f"+{found.group(1)}: the key exists: leave the + out"
    if found := re.search(r"Interpolation key '([^']+)' not found\s+full_key: (\S+)", text):
        return f"{found.group(2)}: there is no key '{found.group(1)}', as ${{{found.group(1)}}} has it"
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(dict.fromkeys(line for line in lines if line and not line.startswith(_DETAILS)))


def _unparsed(override: str) -> str:
    """For an override that Hydra's grammar does not know: how to write it."""
    key, _, value = override.partition("=")
    if not _parses(f"{key}=1"):
        return f"'{override}': '{key}' is no key"
    kind = {"[": "list such as [1,2]", "{": "dictionary such as {a:1,b:2}"}.get(value[:1])
    if kind is not None:
        return f"'{override}': the value is no {kind}"
    return f"'{override}': quote a value with special characters, as in {in_quotes(key, value)}"


def as_typed(key: str, value: str) -> str:
    """An override as it is typed, in quotes where its value needs them."""
    plain = f"{key}={value}"
    try:
        same = OverridesParser.create().parse_override(plain).value() == value
    except HydraException:
        same = False
    return plain if same and shlex.quote(plain) == plain else in_quotes(key, value)


def in_quotes(key: str, value: str) -> str:
    """How an override with any value is typed in a shell; interpolations stay what they are."""
    # Backslashes mean themselves, except in front of a quote.
    inside = re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), value)
    return shlex.quote(f'{key}="{inside}"')


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def unknown_choice(group: str, choice: str) -> str:
    """For a choice that a group has not got: those that it has."""
    legal = choices_of(group)
    hint = did_you_mean(choice, legal)
    possible = ", ".join(legal) or "none that certtrain brings along: is its plugin installed?"
    if len(legal) > LISTED:
        possible = f"{len(legal)} names that python -m certtrain --help lists"
    name = choice if "." in choice else f"my{group}.{choice}"
    own = "" if hint or group not in OWN else "; " + OWN[group].format(name=name)
    return f"unknown {group} '{choice}': possible are {possible}{hint}{own}{switched_off(group)}"


def switched_off(group: str) -> str:
    """How a group is switched off that can be, for people who gave it a choice that is none."""
    return f"; {OFF[group]}" if group in OFF else ""


def choices_of(group: str) -> list[str]:
    """Choices of a group, those of --config-dir among them while Hydra is composing."""
    if GlobalHydra.instance().is_initialized() and not group.startswith("hydra/"):
        loader = GlobalHydra.instance().config_loader()
        return sorted(loader.get_group_options(group, ObjectType.CONFIG))
    return sorted(file.stem for file in (config_dir() / group).glob("*.yaml"))


def _no_such_key(key: str) -> str:
    """For an override of a key that the configuration has not got."""
    if "/" in key and (config_dir() / key).is_dir():
        needed = "hydra/sweeper=optuna" if key.startswith("hydra/") else f"method={key.split('/')[0]}"
        return f"unknown group '{key}' here: it needs {needed}"
    if (config_dir() / key).is_dir():
        return f"{key} has no choices: set its keys, as in {key}.key=value"
    return _unknown_key(key)


def _unknown_key(key: str) -> str:
    leaves = _all_keys()
    node = key.split(".")[0]
    if key in leaves and (config_dir() / "method" / f"{node}.yaml").is_file():
        return f"unknown key '{key}' here: it needs method={node}"
    if key in leaves and node == "logger":
        return f"unknown key '{key}' here: it needs logger={key.split('.')[1]}"
    # What stands left of a dot, and groups, can be set as well as a key.
    nodes = {leaf.rsplit(".", n)[0] for leaf in leaves for n in range(1, leaf.count(".") + 1)}
    groups = {file.parent.relative_to(config_dir()).as_posix() for file in config_dir().rglob("*/*.yaml")}
    legal = [*leaves, *(nodes | groups)]
    hint = did_you_mean_key(key, legal)
    if node in OPEN_NODES and "." in key:
        return f"unknown key '{key}'{f'{hint} If' if hint else ': if'} the {node} takes it, write +{key}=..."
    return f"unknown key '{key}'{hint or ': --cfg ' + ('hydra' if node == 'hydra' else 'job') + ' shows all'}"


@cache
def _all_keys() -> list[str]:
    """Dotted keys of the default configuration, of every method's own node and of all loggers."""
    keys: set[str] = set()
    loggers = ",".join(file.stem for file in sorted((config_dir() / "logger").glob("*.yaml")))
    for method in (file.stem for file in (config_dir() / "method").glob("*.yaml")):
        composed = compose("config", [f"method={method}", f"logger=[{loggers}]"])
        keys.update(_dotted(OmegaConf.to_container(composed), ""))
    return sorted(keys)


def _dotted(node: Any, prefix: str) -> Iterator[str]:
    if not isinstance(node, dict):
        yield prefix.removesuffix(".")
        return
    for key, value in node.items():
        yield from _dotted(value, f"{prefix}{key}.")


def not_text(folder: Path) -> Path | None:
    """The first file of a folder of configurations that is not UTF-8: the decoder names none."""
    for file in sorted(folder.rglob("*.yaml")):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return file
        except OSError:
            continue
    return None
