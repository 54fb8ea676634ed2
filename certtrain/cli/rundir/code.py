"""Code of one's own that a run is made of: where it lies, and what it was, so that the run can be read from anywhere.

A run names classes by dotted names (`_target_`). Those of modules that are not installed are found in the current
directory and on PYTHONPATH when the run begins. `code.json` in the run directory keeps where that was.
"""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from certtrain.files import replacing

CODE = "code.json"
# Python's own modules.
_STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))


def own_folder(module: str) -> Path | None:
    """The folder from which a module's top-level package is imported; None if it is installed, or not there."""
    top = module.partition(".")[0]
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin in ("built-in", "frozen"):
        return None
    # A package without __init__.py has no file of its own.
    places = list(spec.submodule_search_locations or ())
    file = Path(str(places[0]), "__init__.py") if spec.origin is None else Path(spec.origin)
    file = file.resolve()
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    if top == "certtrain" or installed or any(file.is_relative_to(folder) for folder in _STANDARD):
        return None
    return file.parent.parent if spec.submodule_search_locations else file.parent


def remember_code(directory: Path, node: Mapping[str, Any]) -> None:
    """Writes down where own modules of a configuration lie; nothing if it names none, or that was done before.

    Args:
        directory: Of the run; exists.
        node: The resolved configuration.
    """
    if (directory / CODE).is_file():
        return  # a run that goes on: what counts is what it began with
    known = {}
    for module in sorted({target.rpartition(".")[0] for target in _targets(node)}):
        folder = own_folder(module)
        if folder is None:
            continue
        file = _file(module)
        digest = None if file is None else sha256(file.read_bytes()).hexdigest()
        known[module] = {"folder": str(folder), "file": None if file is None else str(file), "sha256": digest}
    if known:
        with replacing(directory / CODE) as partial:
            partial.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def find_code(directory: Path) -> list[str]:
    """Lets the modules be imported that a run directory remembers, where nothing of their names is found.

    Args:
        directory: Of the run.

    Returns:
        One line for each module that is no longer what it was, for people: its network may be another function.
    """
    try:
        known = json.loads((directory / CODE).read_text(encoding="utf-8"))
        entries = [(str(module), str(entry["folder"]), entry.get("sha256")) for module, entry in known.items()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []  # no code of one's own; what is missing is told where it is imported
    changed = []
    for module, folder, digest in entries:
        if _file(module) is None and folder not in sys.path:
            sys.path.append(folder)
            invalidate_caches()
        file = _file(module)
        if file is not None and digest is not None and sha256(file.read_bytes()).hexdigest() != digest:
            changed.append(f"{file} is not what it was when {directory} was trained")
    return changed


def tell_changes(directory: Path) -> None:
    """Finds the code of a run, see `find_code`, and prints what is no longer what it was."""
    for line in find_code(directory):
        print(f"note: {line}", file=sys.stderr)


def _file(module: str) -> Path | None:
    """The source file of a module, which may itself be a class in one."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        try:
            spec = find_spec(".".join(parts[:end]))
        except Exception:  # a package that fails while it is imported: whoever uses it will say so
            continue
        if spec is not None:
            file = Path(str(spec.origin))
            return file if file.is_file() else None
    return None


def _targets(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _targets(value)
