"""Processes of their own, in which something is measured."""

from __future__ import annotations

import os
from pathlib import Path


def environment() -> dict[str, str]:
    """This process's environment, in which `python -m benchmarks.<module>` is found from every folder."""
    search = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": search}
