"""torchmetrics without what it imports for plots and audio: a second and a half before the first step.

Lightning imports all of torchmetrics, and torchmetrics imports scipy.signal and matplotlib wherever they are installed,
for features that nothing here uses. While it is imported they are said to be absent. Both are imported by whoever needs
them afterwards, as always.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from typing import Any

ABSENT = frozenset({"scipy", "matplotlib"})


def import_torchmetrics() -> None:
    """Imports torchmetrics quickly, if it is not there already; call it before anything that imports Lightning."""
    if "torchmetrics" not in sys.modules:
        with _said_to_be_absent():
            import_module("torchmetrics")


@contextmanager
def _said_to_be_absent() -> Iterator[None]:
    """Inside, lightning_utilities, which torchmetrics asks, does not find `ABSENT`.

    With another lightning_utilities, whose functions have other names, nothing is different from a plain import.
    """
    asked = import_module("lightning_utilities.core.imports")
    find_spec, version = getattr(asked, "find_spec", None), getattr(asked, "_version", None)
    cached = [getattr(asked, name, None) for name in ("package_available", "module_available")]
    if find_spec is None or version is None or not all(hasattr(function, "cache_clear") for function in cached):
        yield
        return

    def no_spec(name: str, package: str | None = None) -> Any:
        return None if name in ABSENT else find_spec(name, package)

    def no_version(name: str) -> str:
        if name in ABSENT:
            raise PackageNotFoundError(name)
        return str(version(name))

    asked.find_spec, asked._version = no_spec, no_version  # type: ignore[attr-defined]
    try:
        yield
    finally:
        asked.find_spec, asked._version = find_spec, version  # type: ignore[attr-defined]
        for function in cached:
            function.cache_clear()  # type: ignore[union-attr]
