"""`python -m certtrain show TARGET`: one part of a configuration as it is composed, with the comments of its files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from certtrain._paths import config_dir
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.explain import explain
from certtrain.cli.configuration.parser import Parser, read_arguments
from certtrain.cli.configuration.sentences import GROUPS
from certtrain.cli.help.page import choices
from certtrain.cli.process.output import while_somebody_reads
from certtrain.cli.rundir.recorded import as_command
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean, did_you_mean_key

# Groups whose choices change keys all over the configuration: what they change is shown.
OVERLAYS = ("experiment", "recipe")
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[\w'\"]+):(?: +(?P<rest>.*))?$")
_INLINE = re.compile(r"\s#\s*(.*)$")
_PACKAGE = re.compile(r"^# @package (\S+)$")

Comments = dict[str, list[str]]


def show_command(arguments: list[str]) -> None:
    """Prints a part of the configuration.

    Args:
        arguments: What follows `show` on the command line.

    Raises:
        ConfigError: If there is no such part; one line.
    """
    parser = Parser(
        prog="python -m certtrain show",
        description="Prints one part of the configuration, with what its files say of each key: a choice of a group "
        "(loss=sabr, experiment=mnist_ibp), a node or a key (pgpe, schedule.eps), as other overrides leave it.",
    )
    parser.add_argument("target", help="group=choice, a group, a node or a key")
    parser.add_argument("override", nargs="*", default=[], help="further overrides, as for a run")
    parser.add_argument("--config-dir", "-cd", help="a folder with further choices, as for a run")
    found = parser.parse_args(arguments)
    if (Path(found.target) / "config.yaml").is_file():
        raise ConfigError(f"show: {found.target} is a run: its configuration is {Path(found.target, 'config.yaml')}")
    text = shown(found.target, found.override, found.config_dir)
    with while_somebody_reads():
        print(text, end="")


def shown(target: str, overrides: Sequence[str] = (), folder: str | None = None) -> str:
    """The text that `show` prints, valid YAML.

    Args:
        target: What to show.
        overrides: What else is chosen.
        folder: With further choices, as of --config-dir.

    Raises:
        ConfigError: If there is no such part, with a hint at what may be meant; one line.
    """
    key, chosen, _ = target.partition("=")
    group = key.lstrip("+").partition("@")[0]
    typed = [*overrides, target] if chosen else list(overrides)
    command = _command(typed, folder)
    (composed,) = compose_jobs(command)
    roots = [config_dir(), *filter(None, [command.config_dir])]
    comments = _comments(composed, roots)
    if group in OVERLAYS and chosen:
        (plain,) = compose_jobs(_command(overrides, folder))
        said = _head(roots, f"{group}/{target.partition('=')[2]}.yaml")
        changed = _difference(_whole(composed), _whole(plain))
        lines = [*said, *_commented(changed, comments, "", 0, "")] or [f"# {target} changes nothing"]
        return "\n".join([*lines, ""])
    name = (key.partition("@")[2] or group).lstrip("+").replace("/", ".")
    node = _select(composed, name)
    heading = [] if "@" in key else _heading(group, composed)
    return "\n".join([*heading, *_commented(_nested(name, node), comments, "", 0, name), ""])


def _command(overrides: Sequence[str], folder: str | None) -> Command:
    flags = [] if folder is None else [f"--config-dir={folder}"]
    return as_command(read_arguments([*overrides, *flags]))


def _whole(composed: DictConfig) -> dict[str, Any]:
    """Everything but Hydra's own node."""
    return {str(key): _select(composed, str(key)) for key in composed if key != "hydra"}


def _select(composed: DictConfig, name: str) -> Any:
    """The resolved part under a dotted name.

    Raises:
        ConfigError: If there is none.
    """
    try:
        own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        parent = OmegaConf.select(own, name.rpartition(".")[0]) if "." in name else own
        if not isinstance(parent, DictConfig) or name.rpartition(".")[2] not in parent:
            raise ConfigError(_unknown(name, own))
        if name.split(".")[0] == "data" and OmegaConf.is_interpolation(own.data.source, "shape"):
            # It is measured, in data that need not be there to be shown.
            return _inside(OmegaConf.to_container(own, resolve=False), name.split("."))
        node = OmegaConf.select(own, name)
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error


def _inside(node: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        node = node[key]
    return node


def _unknown(name: str, own: DictConfig) -> str:
    group = name.replace(".", "/")
    if group in GROUPS:
        names = list(choices(config_dir() / group))
        return (
            f"show: nothing of {group} is chosen: add one of {group}={'|'.join(names[:6])}{'|...' if names[6:] else ''}"
        )
    keys = list(_dotted(OmegaConf.to_container(own, resolve=False), ""))
    nodes = {key.rsplit(".", n)[0] for key in keys for n in range(1, key.count(".") + 1)}
    hint = did_you_mean(name, [*GROUPS, *nodes]) or did_you_mean_key(name, [*keys, *nodes])
    return f"show: there is no group, node or key '{name}'{hint or '; --help lists groups, --cfg job shows all keys'}"


def _heading(group: str, composed: DictConfig) -> list[str]:
    """What is chosen of a group, and what else may be."""
    if group not in GROUPS:
        return []
    chosen = composed.hydra.runtime.choices.get(group)
    others = [name for name in choices(config_dir() / group) if name != chosen]
    return [f"# {group}={chosen}" + (f"; others: {', '.join(others)}" if others else "")]


def _head(roots: Sequence[Path], name: str) -> list[str]:
    """The comments that a file begins with."""
    said: list[str] = []
    for file in (root / name for root in roots if (root / name).is_file()):
        for line in file.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            said += [] if _PACKAGE.match(line) else [line]
    return said


def _difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration is new or another; nodes of another target are shown whole."""
    found: dict[str, Any] = {}
    for key, value in new.items():
        before = old.get(key)
        if key in old and value == before:
            continue
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        if both and value.get("_target_") == before.get("_target_"):  # type: ignore[union-attr]
            found[key] = _difference(value, before)  # type: ignore[arg-type]
        else:
            found[key] = value
    return found


def _nested(name: str, node: Any) -> dict[str, Any]:
    """A part under its whole name: a: {b: part}."""
    for key in reversed(name.split(".")):
        node = {key: node}
    return node


def _commented(node: Mapping[str, Any], comments: Comments, prefix: str, depth: int, top: str) -> Iterator[str]:
    """YAML, with the comments of each key above it; of the nodes around what is shown, none."""
    space = "  " * depth
    for key, value in node.items():
        name = f"{prefix}{key}"
        if not top.startswith(f"{name}."):
            yield from (f"{space}# {line}" for line in comments.get(name, ()))
        if isinstance(value, Mapping) and value:
            yield f"{space}{_scalar(key)}:"
            yield from _commented(value, comments, f"{name}.", depth + 1, top)
        else:
            yield f"{space}{_scalar(key)}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _comments(composed: DictConfig, roots: Sequence[Path]) -> Comments:
    """Dotted key -> what the files that were composed say above it, and behind it."""
    found = _of_file(config_dir() / "config.yaml", "")
    for slot, choice in composed.hydra.runtime.choices.items():
        group, _, package = str(slot).partition("@")
        for file in (root / group / f"{choice}.yaml" for root in roots):
            if choice is not None and not group.startswith("hydra") and file.is_file():
                found |= _of_file(file, package or group.replace("/", "."))
    return found


def _of_file(file: Path, package: str) -> Comments:
    """The comments of one file; the sentence that it begins with is one of the node that it fills."""
    found: Comments = {}
    above: list[str] = []
    path: list[tuple[int, str]] = []
    begun = False
    for line in file.read_text(encoding="utf-8").splitlines():
        if named := _PACKAGE.match(line):
            package = "" if named[1] == "_global_" else named[1]
        elif line.lstrip().startswith("#"):
            above.append(line.strip().removeprefix("#").strip())
            if not begun:
                found[package] = [above.pop()]
            begun = True
        elif key := _KEY.match(line):
            indent = len(key["indent"])
            path = [*(part for part in path if part[0] < indent), (indent, key["key"].strip("'\""))]
            name = ".".join(filter(None, [package, *(part for _, part in path)]))
            behind = _INLINE.search(key["rest"] or "")
            lines = [*above, *([behind[1]] if behind else [])]
            if lines:
                found[name] = lines
            above, begun = [], True
        else:
            above, begun = [], True
    return found


def _dotted(node: Any, prefix: str) -> Iterator[str]:
    if not isinstance(node, Mapping) or not node:
        yield prefix.removesuffix(".")
        return
    for key, value in node.items():
        yield from _dotted(value, f"{prefix}{key}.")
