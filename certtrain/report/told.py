"""Which keys of a run somebody set, as against those that have their values by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from certtrain._paths import config_dir
from certtrain.earlier import ALWAYS, BEFORE
from certtrain.nodes import flatten

# How a key ends that brings others along, as relaxation.name and model._target_ do.
CHOICES = ("name", "_target_")
# Groups whose choices set keys anywhere.
SETTINGS = ("experiment", "recipe")
# Said of every run, whoever set them.
ALWAYS_SAID = frozenset({"data.name", "eps", "images", "model._target_", "loss._target_", "relaxation.name", "method"})
# What configurations of before some keys are taken to have had.
_EARLIER = {**dict(flatten(ALWAYS)), **dict(flatten(BEFORE))}


def told(overrides: Any) -> frozenset[str] | None:
    """Dotted keys that a command line sets; of a choice of a group what names it, of an experiment what it sets.

    Args:
        overrides: As recorded: key=value, a word each.

    Returns:
        None where it cannot be known: nothing is recorded, or a choice is none of certtrain's own.
    """
    if not isinstance(overrides, Sequence) or isinstance(overrides, str):
        return None
    try:
        return frozenset(key for override in overrides for key in _keys(*_parted(str(override))))
    except OSError:
        return None


def is_worth_saying(key: str, value: Any, keys: frozenset[str] | None) -> bool:
    """Whether a key is said of runs that have it in common.

    Args:
        key: Dotted.
        value: Of the key.
        keys: What was set, as `told` has it; None where that is not known.
    """
    if key in ALWAYS_SAID:
        return True
    if keys is None:
        return key not in _EARLIER or _EARLIER[key] != value
    return any(key == one or key.startswith(f"{one}.") for one in keys)


def _parted(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _keys(key: str, value: str) -> Iterator[str]:
    if not (config_dir() / key).is_dir():
        yield key
    elif key in SETTINGS:
        yield from _set_by(key, value)
    else:
        yield from (f"{key.replace('/', '.')}.{name}" for name in CHOICES)


def _set_by(group: str, choice: str) -> Iterator[str]:
    """What a file sets that sets keys anywhere, and what it builds on.

    Raises:
        OSError: If there is no such file.
    """
    import yaml  # here, because reports are imported by whoever never reads a configuration

    if choice in ("null", ""):
        return
    node = yaml.safe_load((config_dir() / group / f"{choice}.yaml").read_text(encoding="utf-8"))
    for default in node.pop("defaults", ()):
        for name, chosen in default.items() if isinstance(default, Mapping) else ():
            yield from _keys(str(name).removeprefix("override ").lstrip("/"), str(chosen))
    yield from (key for key, _ in flatten(node))
