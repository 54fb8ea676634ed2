"""What a `_target_` of the configuration names, made and checked."""

from __future__ import annotations

import re
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from certtrain.cli.configuration.own_targets import REPLACED, accepted
from certtrain.cli.configuration.schema import Node
from certtrain.cli.configuration.targets import failed_call, target_fault
from certtrain.errors import CerttrainError, ConfigError

# How Hydra begins when there is nothing of a target's name.
_ABSENT = re.compile(r"Error loading|Cannot instantiate|Unsupported target|Expected a callable target|Error locating")


def instantiate(node: Node, key: str, **given: Any) -> Any:
    """Builds what a node's `_target_` names.

    Raises:
        CerttrainError: The target's own complaint, or one line that names the key.
    """
    if twice := [name for name in given if name in node]:
        raise ConfigError(f"{key}.{twice[0]} is decided by the rest of the configuration: leave it out")
    if key in REPLACED:
        given = accepted(node, key, given)
    try:
        return hydra.utils.instantiate({**node, "_convert_": "all"}, **given)
    except InstantiationException as error:
        if isinstance(error.__cause__, CerttrainError):
            raise error.__cause__ from None
        if _ABSENT.search(str(error)) and (reason := target_fault(str(node.get("_target_")))):
            raise ConfigError(f"{key}._target_: {reason}") from error
        raise ConfigError(f"{key}: {failed_call(node, error.__cause__ or error)}") from error


def part(node: Node, key: str, kind: type, **given: Any) -> Any:
    """Builds what a node's `_target_` names, which must be of a kind; see `instantiate`."""
    found = instantiate(node, key, **given)
    check_kind(found, node, key, kind)
    return found


def check_kind(found: object, node: Node, key: str, kind: type) -> None:
    """Refuses what a node's `_target_` has made, if it is of another kind.

    Raises:
        ConfigError: One line that names the key.
    """
    if not isinstance(found, kind):
        made, wanted = type(found).__name__, f"{kind.__module__}.{kind.__qualname__}"
        raise ConfigError(f"{key}._target_: {node.get('_target_')} makes a {made}, no {wanted}")
