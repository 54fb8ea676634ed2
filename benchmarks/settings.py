"""What the command line asks for. Nothing here needs torch, so that its mistakes are answered at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SECTIONS = (
    "bounds",
    "batches",
    "population",
    "memory",
    "scaling",
    "peak",
    "neighbours",
    "gpu",
    "certify",
    "losses",
    "approaches",
)
# What --data takes for random images.
NO_DATA = "none"


@dataclass(frozen=True)
class Settings:
    """What the command line asks for.

    Attributes:
        sections: Which of SECTIONS, in their order.
        quick: A few seconds' worth of everything.
        data: Folder with MNIST, NO_DATA for random images, None for the hub's copy.
        out: Results, and weights trained for the purpose.
        threads: Of torch; None for its own choice.
        keep_memory: Whether the C library keeps freed memory, as `python -m certtrain` tells it to.
        search_networks: Whose properties are searched, names in `vnncomp.recipes`; None for those of the plan.
        search_seconds: For each property; None for those of the plan.
    """

    sections: tuple[str, ...]
    quick: bool
    data: str | None
    out: Path
    threads: int | None
    keep_memory: bool
    search_networks: tuple[str, ...] | None = None
    search_seconds: float | None = None
