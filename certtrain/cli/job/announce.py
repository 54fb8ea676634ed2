"""Tells whoever started a command in which directory its run is: a new one has a name that only the command knows."""

from __future__ import annotations

import os
from pathlib import Path

# Names a file that is written to; set by `certtrain.train`.
FILE = "CERTTRAIN_ANNOUNCE"


def announce(directory: Path) -> None:
    """Writes the run directory where the environment asks for it."""
    if asked := os.environ.get(FILE):
        Path(asked).write_text(os.path.abspath(directory), encoding="utf-8")
