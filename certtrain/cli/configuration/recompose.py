"""A recorded configuration with other settings: composed by Hydra, so that overrides mean what they mean in a run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from hydra import compose
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from certtrain._paths import config_dir
from certtrain.cli.configuration.compose import Command, compose_jobs, hydra_for, parsed_overrides
from certtrain.cli.configuration.own_targets import replace_targets
from certtrain.cli.configuration.schema import Node, plain
from certtrain.errors import ConfigError

RECORDED = "recorded"
# What a certification depends on; everything else was decided when the network was trained.
OPEN = ("eps", "clip", "seed", "data", "certify", "verifier", "trainer.accelerator")


def compose_anew(overrides: Sequence[str]) -> Node:
    """A configuration as of a run.

    Raises:
        ConfigError: If an override does not fit.
    """
    (composed,) = compose_jobs(Command(replace_targets(overrides), False, False))
    return plain(composed)


def compose_upon(node: Node, overrides: Sequence[str]) -> Node:
    """A recorded configuration with overrides.

    Args:
        node: The configuration, resolved.
        overrides: Keys, and choices of groups, which replace what was recorded of the group.

    Raises:
        ConfigError: If an override does not parse, or is about what was decided before.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = Command(tuple(overrides), False, False, Path(folder))
        with hydra_for(command):
            parsed = parsed_overrides(command)
            kept, lines = node, []
            chosen = {override.key_or_group for override in parsed if _is_choice(override)}
            for override in parsed:
                _check_open(override)
                if _is_choice(override):
                    path = override.key_or_group.split("/")
                    kept = _without(kept, path)
                    # Where the group around it is chosen, too, this one is chosen there already, by default.
                    lines.append(
                        str(override.input_line) if path[0] in chosen - {"/".join(path)} else f"+{override.input_line}"
                    )
                else:
                    lines.append(str(override.input_line))
            recorded = OmegaConf.create({"defaults": ["_self_"], **kept})
            OmegaConf.save(recorded, Path(folder) / f"{RECORDED}.yaml")
            return plain(compose(RECORDED, lines))


def _check_open(override: Override) -> None:
    line, key = override.input_line, override.package or override.key_or_group.replace("/", ".")
    if override.is_sweep_override():
        raise ConfigError(f"'{line}' has several values; several radii are a list: eps=[0.05,0.1]")
    if not any(key == name or key.startswith(f"{name}.") for name in OPEN):
        raise ConfigError(f"'{line}': the run has decided this; a certification takes {', '.join(OPEN)}")


def _is_choice(override: Override) -> bool:
    """Whether a group that was chosen before is given another choice; a new node, with +, has nothing before it."""
    named = isinstance(override.value(), str) and override.package is None
    return named and not override.is_add() and (config_dir() / override.key_or_group).is_dir()


def _without(node: Node, path: Sequence[str]) -> Node:
    first, *rest = path
    if not rest:
        return {key: value for key, value in node.items() if key != first}
    return {**node, first: _without(node[first], rest)} if isinstance(node.get(first), dict) else node
