"""Configurations and records as one value per key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(node: Any, prefix: str = "", separator: str = ".") -> Iterator[tuple[str, Any]]:
    """Joined keys and their values: a node in a node becomes `outer.inner`; an empty one is a value.

    Args:
        node: Of anything but a mapping there are no keys.
        prefix: In front of every key.
        separator: Between a key and those below it.
    """
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}{separator}", separator)
        else:
            yield f"{prefix}{key}", value
