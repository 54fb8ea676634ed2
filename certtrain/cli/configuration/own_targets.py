"""Networks and losses of one's own on the command line: `model._target_=mynet.MyNet` stands in place of `model=`.

Hydra would merge it with the keys of whatever is chosen, which are arguments of another class.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from certtrain.cli.configuration.targets import locate
from certtrain.errors import ConfigError
from certtrain.spelling import did_you_mean

# Groups whose choice is a target and its arguments, and nothing that the rest of the program reads.
REPLACED = ("model", "loss")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def replace_targets(overrides: Iterable[str]) -> tuple[str, ...]:
    """Overrides under which a target of one's own replaces what its group chooses, and further keys are its arguments.

    Who chooses, too, as in `model=cnn3 model._target_=mynet.MyNet`, asks for the arguments of that choice.

    Args:
        overrides: As typed.

    Returns:
        The same, in Hydra's words; what is such a list already stays as it is.
    """
    found = tuple(overrides)
    for node in REPLACED:
        keys = [override.partition("=")[0] for override in found]
        targets = {f"{sign}{node}._target_" for sign in ("", "+", "++")}
        if targets.isdisjoint(keys) or node in keys or f"~{node}" in keys:
            continue
        inside = f"{node}."
        found = (f"~{node}", *(f"++{override}" if override.startswith(inside) else override for override in found))
    return found


def accepted(node: Mapping[str, Any], key: str, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some arguments that a target names, or all if it takes any.

    Args:
        node: The target with its own arguments.
        key: Of the node, for messages.
        offered: Name -> argument.

    Raises:
        ConfigError: If an argument in the node is none of the target's, or the target needs one that nobody gives.
    """
    target = str(node.get("_target_"))
    own = [name for name in node if not name.startswith("_")]
    try:
        parameters = inspect.signature(locate(target)).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):  # there is no such thing, or it does not tell: whoever calls it will say so
        return dict(offered)
    named = [name for name, parameter in parameters.items() if parameter.kind not in _VARIADIC]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any and (unknown := [name for name in own if name not in named]):
        raise ConfigError(
            f"{key}: {target} has no argument '{unknown[0]}' (~{key}.{unknown[0]} leaves it out), only "
            f"{', '.join(named) or 'none'}{did_you_mean(unknown[0], named).rstrip('?')}{_offer(key, offered)}"
        )
    missing = [
        name
        for name in named
        if parameters[name].default is inspect.Parameter.empty and name not in own and name not in offered
    ]
    if missing and "_args_" not in node:
        raise ConfigError(
            f"{key}: {target} needs '{missing[0]}': set {key}.{missing[0]}=... or give it a default"
            + _offer(key, offered)
        )
    return {name: value for name, value in offered.items() if takes_any or name in named}


def _offer(key: str, offered: Mapping[str, Any]) -> str:
    if not offered:
        return ""
    known = ", ".join(f"{name}={list(v) if isinstance(v, tuple) else v}" for name, v in offered.items())
    return f"; a {key} is given those of {known} that it names"
