"""Times for people: one that was measured, and one that is not known well."""

from __future__ import annotations

# Seconds from which on a time is told in a unit, and how long that is.
_UNITS = ((2 * 3600.0, 3600.0, "h"), (2 * 60.0, 60.0, "min"), (0.1, 1.0, "s"), (0.0, 0.001, "ms"))


def duration(seconds: float) -> str:
    """A time that has passed: 9.5 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def about(seconds: float) -> str:
    """A time that is estimated, in at most seven characters: 34 ms, 0.5 s, 45 s, 12 min, 2.8 h.

    The words around it say that it is about so long.
    """
    size, unit = next(((size, unit) for least, size, unit in _UNITS if seconds > least), (1.0, "s"))
    number = seconds / size
    return f"{number:.2g} {unit}" if number < 10 else f"{number:.0f} {unit}"
