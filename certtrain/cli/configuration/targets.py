"""What is wrong with a `_target_`, a dotted name of something that can be called."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from certtrain.errors import one_line
from certtrain.spelling import did_you_mean


def target_fault(target: str) -> str | None:
    """Which part of a dotted name does not exist, with a hint at what does; None if all of it does.

    Args:
        target: Such as torch.optim.Adam.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return f"'{target}' is no dotted name such as torch.optim.Adam, or mynet.MyNet of a file mynet.py"
    if (broken := _broken_module(parts)) is not None:
        return broken
    module, end = _module(parts)
    if module is None:
        return f"there is no module '{parts[0]}' in the current directory ({Path.cwd()}), on PYTHONPATH or installed"
    found: object = module
    for i, part in enumerate(parts[end:], start=end):
        if not hasattr(found, part):
            names = [n for n in dir(found) if not n.startswith("_")]
            hint = did_you_mean(part, names).replace("mean ", f"mean {'.'.join(parts[:i])}.")
            return f"there is no {'.'.join(parts[: i + 1])}{hint}"
        found = getattr(found, part)
    return None if callable(found) else f"{target} cannot be called"


def failed_call(node: Mapping[str, Any], error: BaseException) -> str:
    """What calling a target with its arguments has led to; of code that is neither torch's nor certtrain's, where.

    Args:
        node: The target with its own arguments.
        error: What it raised.
    """
    target = str(node.get("_target_"))
    said = one_line(error)
    if target.split(".")[0] in ("certtrain", "torch"):
        return said
    own = ", ".join(f"{key}={value!r}" for key, value in node.items() if not key.startswith("_"))
    module, _ = _module(target.split("."))
    origin = getattr(module, "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == origin]
    where = f" ({origin}, line {lines[-1]})" if lines else ""
    return f"{target}({own}) failed: {type(error).__name__}: {said.removeprefix(f'{type(error).__name__}: ')}{where}"


def locate(target: str) -> object | None:
    """What a dotted name stands for; None if there is no such thing."""
    parts = target.split(".")
    if not all(part.isidentifier() for part in parts) or _broken_module(parts) is not None:
        return None
    found, end = _module(parts)
    for part in parts[end:]:
        found = getattr(found, part, None)
    return found


def _broken_module(parts: list[str]) -> str | None:
    """Why a module that is there cannot be imported; None if none of those that a dotted name begins with is so."""
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):  # what it would be part of is no package
            return None
        if spec is None:
            return None
        try:
            import_module(name)
        except Exception as error:  # whatever a module may do
            return f"module '{name}' cannot be imported: {type(error).__name__}: {one_line(error)}{_where(error, spec)}"
    return None


def _where(error: BaseException, spec: object) -> str:
    """File and line of a module's own code where it failed."""
    origin = getattr(spec, "origin", None)
    if isinstance(error, SyntaxError):
        return f" ({error.filename})"  # the line stands in its text
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == origin]
    return f" ({origin}, line {lines[-1]})" if lines else ""


def _module(parts: list[str]) -> tuple[object | None, int]:
    """The longest part of a dotted name that is a module, and of how many words it is made."""
    module: object | None = None
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        try:
            if find_spec(name) is None:
                return module, end - 1
            module = import_module(name)
        except ImportError:
            return module, end - 1
    return module, len(parts)
