"""Options of commands as key=value, typed: what --help shows of them, and what is made of what was typed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from certtrain.cli.configuration.complaints import complaint
from certtrain.cli.configuration.parser import Parser
from certtrain.cli.configuration.schema import Strict
from certtrain.errors import ConfigError, one_line
from certtrain.spelling import did_you_mean

Asked = TypeVar("Asked", bound=Strict)


def keyed_parser(command: str, description: str, kind: type[Strict]) -> Parser:
    """A parser whose --help lists the keys of a command with their defaults.

    Args:
        command: Its first word.
        description: What --help says above the keys.
        kind: The options; their descriptions say what they are.
    """
    lines = [f"  {name + '=' + _typed(field.default):<44} {field.description}" for name, field in _fields(kind)]
    return Parser(
        prog=f"python -m certtrain {command}",
        description=description,
        epilog="keys and their defaults:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def read_options(command: str, kind: type[Asked], overrides: Sequence[str]) -> Asked:
    """The options that were typed, and the defaults of the others.

    Raises:
        ConfigError: If a word is no key=value, a key does not exist, or its value is not legal.
    """
    known = [name for name, _ in _fields(kind)]
    for word in overrides:
        key, sign, _ = word.partition("=")
        if not sign:
            raise ConfigError(f"{command}: '{word}' is no key=value; see python -m certtrain {command} --help")
        if key not in known:
            raise ConfigError(
                f"{command}: unknown key '{key}'{did_you_mean(key, known)}; see python -m certtrain {command} --help"
            )
    try:
        node = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)), resolve=True)
        return kind.model_validate(node)
    except ValidationError as error:
        raise ConfigError(f"{command}: {complaint(error)}") from error
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"{command}: {one_line(error)}") from error


def _fields(kind: type[Strict]) -> list[tuple[str, Any]]:
    return list(kind.model_fields.items())


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ",".join(map(str, value)) + "]"
    return "null" if value is None else str(value)
