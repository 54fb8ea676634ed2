"""Files of a run: written at once or not at all, and named where writing fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError that leaves the block names a file; a disk that is full, found out while writing, names none.

    Args:
        path: The file that is written, or the directory of those that are.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replaces a file in one step: yields where to write, beside it; the old one stays if the block fails.

    Args:
        path: The file; its folder exists.
    """
    partial = path.with_name(f"{path.name}.partial")
    with naming(path):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
