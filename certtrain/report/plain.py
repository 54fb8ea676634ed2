"""Measurements as JSON has them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from certtrain.errors import DataError
from certtrain.files import naming, replacing


def plain(found: Any) -> Any:
    """Dataclasses as objects, tensors as lists; what is not finite is null: JSON has no other word for it."""
    if is_dataclass(found) and not isinstance(found, type):
        return {field.name: plain(getattr(found, field.name)) for field in fields(found)}
    if isinstance(found, Tensor):
        return plain(found.tolist())
    if isinstance(found, Mapping):
        return {str(key): plain(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [plain(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def write_record(record: Mapping[str, Any], path: Path) -> Path:
    """Writes numbers at once; the folder is made."""
    with naming(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(plain(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def write_texts(texts: Mapping[str, str], folder: Path, name: str) -> list[Path]:
    """Writes one thing in several formats, `name`.`suffix` each, into a folder that is there; returns the files.

    Args:
        texts: Suffix -> text; what UTF-8 cannot hold is escaped.
        folder: Where to.
        name: Of the files.
    """
    written = []
    for suffix, text in texts.items():
        path = folder / f"{name}.{suffix}"
        with naming(path):
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        written.append(path)
    return written


def read_record(path: Path) -> dict[str, Any] | None:
    """The numbers of a file; None where there is none.

    Raises:
        DataError: If it holds something else.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no object")
    return found


def numbers(values: Any) -> list[float]:
    """A list of JSON as numbers again: null is NaN."""
    return [math.nan if value is None else float(value) for value in values]
