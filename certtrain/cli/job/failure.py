"""traceback.txt: where a run that failed failed, in its own directory."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from certtrain.files import naming
from certtrain.sweep.jobs import TRACEBACK


@contextmanager
def keeping_traceback(directory: Path) -> Iterator[None]:
    """Writes down an error that leaves the block, also one that the terminal gets in one line; ranks append.

    Args:
        directory: Of the run; exists.
    """
    try:
        with naming(directory):
            yield
    except Exception:
        rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
        with suppress(OSError), (directory / TRACEBACK).open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"rank {rank}\n{traceback.format_exc()}")
        raise  # what failed, also where a full disk takes no traceback
