"""Where compiled code is kept, see `certtrain.cache`: what is cut off would end the process that loads it (SIGBUS)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from certtrain.cache import VARIABLE, Cache, is_off

__all__ = ["VARIABLE", "fetch", "is_off", "private_folder"]

_LIBRARIES = Cache("compiled", ".so")


def fetch(name: str, make: Callable[[Path], None]) -> Path:
    """A library, made if it is not there yet or no longer as it was made.

    Args:
        name: Of the library, without a suffix.
        make: Writes it to a path.

    Raises:
        OSError: If there is no folder to write to, or it belongs to somebody else.
    """
    return _LIBRARIES.find(name) or _LIBRARIES.store(name, make)


def private_folder() -> Path:
    """The user's own folder in the cache: code from it runs in this process.

    Raises:
        PermissionError: If it belongs to another user.
    """
    return _LIBRARIES.folder()
