"""What is wrong with a `_target_`, a dotted name of something that can be called."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from certtrain.spelling import did_you_mean


def target_fault(target: str) -> str | None:
    """Which part of a dotted name does not exist, with a hint at what does; None if all of it does.

    Args:
        target: Such as torch.optim.Adam.
    """
    parts = target.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        return f"'{target}' is no dotted name such as torch.optim.Adam"
    module, end = _module(parts)
    if module is None:
        return f"there is no module '{parts[0]}'"
    found: object = module
    for i, part in enumerate(parts[end:], start=end):
        if not hasattr(found, part):
            names = [n for n in dir(found) if not n.startswith("_")]
            hint = did_you_mean(part, names).replace("mean ", f"mean {'.'.join(parts[:i])}.")
            return f"there is no {'.'.join(parts[: i + 1])}{hint}"
        found = getattr(found, part)
    return None if callable(found) else f"{target} cannot be called"


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
