"""Options of losses, checked by name."""

from __future__ import annotations

import math
from typing import Any

from certtrain.errors import ConfigError


def check_number(name: str, value: Any, low: float = 0.0, high: float = math.inf, *, above: bool = False) -> None:
    """Refuses what is no finite number of a range.

    Args:
        name: Of the option, below `loss`.
        value: What was given.
        low: The smallest legal number.
        high: The largest one.
        above: Whether `low` itself is too small.

    Raises:
        ConfigError: Naming the option and the range.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if number and low <= value <= high and not (above and value == low):
        return
    least = f"{'>' if above else '>='} {low:g}"
    most = "" if high == math.inf else f" and <= {high:g}"
    raise ConfigError(f"loss.{name} must be a number {least}{most}, got {value!r}")
