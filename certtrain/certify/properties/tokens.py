"""VNN-LIB text as nested lists that know their lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from certtrain.errors import ConfigError

_TOKEN = re.compile(r';[^\n]*|\|[^|]*\||"(?:[^"]|"")*"|[()]|[^\s();|"]+')
# A form this deep is no property, and would overflow the stack of whoever reads it.
_DEEPEST = 100


@dataclass(frozen=True)
class Word:
    """A symbol or a number.

    Attributes:
        text: As it stands in the file.
        line: Where, counted from one.
    """

    text: str
    line: int


@dataclass(frozen=True)
class Form:
    """A list in parentheses.

    Attributes:
        items: What stands in it.
        line: Where it begins, counted from one.
    """

    items: list[Expression] = field(default_factory=list)
    line: int = 0


Expression: TypeAlias = "Word | Form"


@dataclass(frozen=True)
class Place:
    """Where a file is complained of.

    Attributes:
        path: The file.
    """

    path: str

    def fault(self, line: int, reason: str) -> ConfigError:
        """What is wrong in a line, to be raised."""
        return ConfigError(f"{self.path}, line {line}: {reason}")


def parse(text: str, place: Place) -> Iterator[Form]:
    """The commands of a file, one after the other.

    Raises:
        ConfigError: If parentheses do not match, with the line.
    """
    open_forms: list[Form] = []
    for word in _words(text):
        if word.text == "(":
            if len(open_forms) == _DEEPEST:
                raise place.fault(word.line, f"more than {_DEEPEST} parentheses inside each other")
            open_forms.append(Form([], word.line))
        elif word.text == ")":
            if not open_forms:
                raise place.fault(word.line, "a ')' without its '('")
            done = open_forms.pop()
            if open_forms:
                open_forms[-1].items.append(done)
            else:
                yield done
        elif not open_forms:
            raise place.fault(word.line, f"'{_short(word.text)}' stands outside of parentheses")
        else:
            open_forms[-1].items.append(word)
    if open_forms:
        raise place.fault(open_forms[0].line, "a '(' without its ')': the file may be cut off")


def _words(text: str) -> Iterator[Word]:
    line, reached = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", reached, match.start())
        reached = match.start()
        if not match[0].startswith(";"):
            yield Word(match[0], line)


def shown(expression: Expression) -> str:
    """An expression as people wrote it, in bounded length."""
    return _short(_text(expression, 8))


def _text(expression: Expression, depth: int) -> str:
    if isinstance(expression, Word):
        return expression.text
    if not depth:
        return "(...)"
    return "(" + " ".join(_text(item, depth - 1) for item in expression.items[:8]) + ")"


def _short(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 60 else text[:57] + "..."
