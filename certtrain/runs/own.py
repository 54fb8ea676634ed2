"""Classes and functions of one's own as overrides: another process finds them again by their dotted names."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from certtrain.cli.configuration.targets import locate
from certtrain.cli.rundir.code import own_folder
from certtrain.errors import ConfigError
from certtrain.sweep.launcher import quoted


@dataclass(frozen=True)
class Given:
    """What an argument of `certtrain.train` adds to its command.

    Attributes:
        overrides: As they are typed.
        folders: Where its modules are imported from, if they are not installed.
    """

    overrides: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def own_target(key: str, given: object) -> Given:
    """A network or a loss as `key._target_=...` and its arguments.

    Args:
        key: `model` or `loss`.
        given: None; a dotted name; a class, or a function that makes one; `functools.partial` of it, with arguments
            that a configuration can hold; or an instance of a dataclass, as losses are.

    Raises:
        ConfigError: If another process could not find it, or make the same; one line that says what would be right.
    """
    if given is None:
        return Given()
    target, arguments = _split(key, given)
    folder = own_folder(target.rpartition(".")[0])
    words = [f"{key}._target_={target}", *(f"{key}.{name}={literal(value, key)}" for name, value in arguments.items())]
    return Given(tuple(words), () if folder is None else (str(folder),))


def _split(key: str, given: object) -> tuple[str, Mapping[str, Any]]:
    """Dotted name and arguments."""
    if isinstance(given, str):
        return given, {}
    if isinstance(given, partial):
        if given.args:
            raise ConfigError(
                f"{key}: give the arguments of {_name(given.func)} by name, not {len(given.args)} by place"
            )
        return dotted_name(key, given.func), given.keywords
    if is_dataclass(given) and not isinstance(given, type):
        return dotted_name(key, type(given)), {field.name: getattr(given, field.name) for field in fields(given)}
    if callable(given) and (isinstance(given, type) or hasattr(given, "__qualname__")):
        return dotted_name(key, given), {}
    raise ConfigError(
        f"{key}: this {type(given).__name__} is an object, and a run makes its own: give the class, a function that "
        f"makes it, or functools.partial({type(given).__name__}, argument=...)"
    )


def dotted_name(key: str, given: Any) -> str:
    """Under which name another process imports a class or a function.

    Raises:
        ConfigError: If it cannot.
    """
    module, name = str(getattr(given, "__module__", "")), _name(given)
    if module in ("__main__", "__mp_main__", "builtins", "None", ""):
        raise ConfigError(
            f"{key}: {name} is defined in this notebook, script or prompt, where another process cannot find it: put "
            "it into a file, such as own.py (in a notebook a cell that begins with %%writefile own.py), and import it"
        )
    if "<" in name:
        what = "a lambda" if "<lambda>" in name else f"{name.rpartition('.')[2]} is defined inside a function"
        raise ConfigError(
            f"{key}: {what}, where another process cannot find it: define it at the top level of a module"
        )
    if locate(f"{module}.{name}") is None:
        raise ConfigError(f"{key}: {module}.{name} cannot be imported: there is no such name in that module")
    return f"{module}.{name}"


def literal(value: Any, key: str) -> str:
    """A value as an override has it.

    Raises:
        ConfigError: If a configuration cannot hold it.
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str() | Path():
            return quoted(str(value))
        case Integral():
            return str(int(value))
        case Real() if isfinite(float(value)):
            return repr(float(value))
        case Mapping():
            return "{" + ",".join(f"{quoted(str(name))}:{literal(item, key)}" for name, item in value.items()) + "}"
        case Sequence() if not isinstance(value, (bytes, bytearray)):
            return "[" + ",".join(literal(item, key) for item in value) + "]"
    if is_dataclass(value) and not isinstance(value, type):
        inside = {field.name: getattr(value, field.name) for field in fields(value)}
        return literal({"_target_": dotted_name(key, type(value)), **inside}, key)
    raise ConfigError(
        f"{key}: a configuration holds numbers, words, lists and dictionaries, not {type(value).__name__} {value!r:.60}"
    )


def _name(given: Any) -> str:
    return str(getattr(given, "__qualname__", type(given).__name__))


def folder_of_certtrain() -> str | None:
    """Where certtrain itself is imported from, if a fresh process may not find it."""
    module = sys.modules["certtrain"].__file__
    assert module is not None
    folder = Path(module).resolve().parent.parent
    return None if {"site-packages", "dist-packages"} & set(folder.parts) else str(folder)
