"""Radii as the literature writes them: eps=8/255."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Keys whose values may be fractions. Of others, a path or a name may look like one.
KEYS = ("eps",)
_FRACTION = re.compile(r"(?<![\w./])(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)(?![\w./])")


def in_decimals(overrides: Iterable[str]) -> list[str]:
    """Overrides whose radii are decimal numbers, also in lists and in sweeps; what is no fraction stays as it is."""
    return [_in_decimals(override) for override in overrides]


def _in_decimals(override: str) -> str:
    key, equals, value = override.partition("=")
    return override if key.lstrip("+") not in KEYS else f"{key}{equals}{_FRACTION.sub(_quotient, value)}"


def _quotient(found: re.Match[str]) -> str:
    above, below = float(found[1]), float(found[2])
    return repr(above / below) if below else found[0]
