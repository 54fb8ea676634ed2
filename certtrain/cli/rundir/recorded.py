"""Commands about a run that is there: `resume=` and `fork=` bring along the keys that it was told.

Keys are brought along as they were typed, and not the configuration that came of them, so that Hydra composes them with
the new ones, in sweeps too, and a choice of a group means what it always does.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from certtrain._paths import config_dir
from certtrain.cli.configuration.compose import Command
from certtrain.cli.configuration.explain import explaining
from certtrain.cli.configuration.own_targets import replace_targets
from certtrain.cli.configuration.parser import read_arguments
from certtrain.cli.rundir.code import find_code
from certtrain.errors import ConfigError
from certtrain.sweep.launcher import quoted

RESUME, FORK, WEIGHTS = "resume", "fork", "warm_start.path"
# Nodes that a choice replaces beside the one of its own name.
REPLACED = {"method": ("pgpe", "rgs")}


def parse_command(arguments: list[str]) -> Command:
    """Reads a command line.

    Raises:
        ConfigError: If it has flags or words that are none, or asks for another configuration than certtrain's.
    """
    return as_command(read_arguments(arguments))


def as_command(found: argparse.Namespace) -> Command:
    """The command of what `read_arguments` has read, with the keys of the run that it goes on with or forks.

    Raises:
        ConfigError: If --config-dir is no folder, or the run cannot be taken.
    """
    inspects = bool(found.cfg or found.info or found.hydra_help or found.shell_completion or found.help)
    folder = None if found.config_dir is None else Path(os.path.abspath(found.config_dir))
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"--config-dir: {folder} is no folder")
    return upon_recorded(Command(replace_targets(found.overrides), bool(found.multirun), inspects, folder))


def upon_recorded(command: Command) -> Command:
    """The command with the keys of the run that it names, if it names one.

    Args:
        command: As typed. `resume=PATH` goes on with a run, `fork=PATH` begins a new one with its weights: those that
            it has judged, or those of the checkpoint that is named.

    Raises:
        ConfigError: One line about why the run cannot be taken.
    """
    named = [word for word in command.overrides if word.partition("=")[0] in (RESUME, FORK)]
    if not named:
        return command
    with explaining():
        typed = [OverridesParser.create().parse_override(word) for word in command.overrides]
    values = {o.key_or_group: o.value() for o in typed if o.key_or_group in (RESUME, FORK)}
    resume, fork = str(values.get(RESUME, "auto")), values.get(FORK)
    if fork is None:
        known = resume not in ("auto", "never") and Path(resume).exists()
        return _with_keys(command, typed, _run_of(Path(resume)), ()) if known else command
    if not isinstance(fork, str):
        raise ConfigError(f"fork={fork} must be one run directory or checkpoint")
    if resume not in ("auto", "never"):
        raise ConfigError(f"resume={resume} goes on with a run, fork={fork} begins a new one: choose one of them")
    if any(o.key_or_group == WEIGHTS for o in typed) and Path(_value(typed, WEIGHTS)) != _weights(Path(fork)):
        raise ConfigError(f"{WEIGHTS}: fork={fork} begins with the weights of that run: leave one of them out")
    weights = _weights(Path(fork))
    return _with_keys(command, typed, _run_of(Path(fork)), [f"{WEIGHTS}={quoted(str(weights))}"])


def _value(typed: Iterable[Override], key: str) -> str:
    return str([o.value() for o in typed if o.key_or_group == key][-1])


def _run_of(path: Path) -> Path:
    return path if path.is_dir() else path.resolve().parent.parent


def _weights(path: Path) -> Path:
    """The checkpoint that a fork begins with, absolute."""
    from certtrain.cli.rundir.directory import RunDirectory  # with torch, which showing a configuration does without

    if not path.exists():
        raise ConfigError(f"fork={path}: there is no such run directory or checkpoint")
    run = RunDirectory(_run_of(path))
    if run.configuration() is None:
        raise ConfigError(
            f"fork={path}: no run has begun in {run.path}, which has no config.yaml; "
            f"{WEIGHTS} takes weights alone, of any origin"
        )
    return (run.judged if path.is_dir() else path).resolve()


def _with_keys(command: Command, typed: Sequence[Override], run: Path, further: Sequence[str]) -> Command:
    told, folder = _told(run)
    find_code(run)  # own classes, which the current directory need not have
    with explaining():
        before = [OverridesParser.create().parse_override(word) for word in told]
    kept = [word for word, override in zip(told, before, strict=True) if _stays(override, typed)]
    return replace(
        command,
        overrides=(*kept, *further, *command.overrides),
        config_dir=folder if command.config_dir is None else command.config_dir,
    )


def _told(run: Path) -> tuple[list[str], Path | None]:
    """The keys that a run was told, and the folder with choices of its user's own.

    Raises:
        ConfigError: If that is not recorded.
    """
    try:
        origin = json.loads((run / "origin.json").read_text(encoding="utf-8"))
        folder = origin.get("config_dir")
        return [str(word) for word in origin["overrides"]], None if folder is None else Path(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # of before there was such a file, or damaged: Hydra has kept them, too
    try:
        return [str(w) for w in yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))], None
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{run} does not say which keys it was told (origin.json, .hydra/overrides.yaml): type all of them"
        ) from error


def _stays(told: Override, typed: Sequence[Override]) -> bool:
    """Whether a recorded key still counts: it is not typed again, nor inside a group that is chosen anew."""
    key = told.key_or_group
    if key in (RESUME, FORK) or told.is_hydra_override():
        return False
    for override in typed:
        if override.input_line == told.input_line or (
            key == override.key_or_group and told.package == override.package
        ):
            return False
        if (config_dir() / override.key_or_group).is_dir() and not override.is_add():
            group = override.key_or_group.replace("/", ".")
            nodes = (override.package or group, *REPLACED.get(group, ()))
            if key.replace("/", ".").startswith(tuple(f"{node}." for node in nodes)):
                return False
    return True
