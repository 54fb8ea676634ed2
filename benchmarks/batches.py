"""The two cheap relaxations from one image to many: where overheads would show."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks import bounds
from benchmarks.bounds import BoundRow
from benchmarks.cases import Bench
from benchmarks.methods import METHODS

NETWORK = "cnn3"


def run(bench: Bench) -> dict[str, Sequence[BoundRow]]:
    """ibp and crown_ibp at every batch."""
    rows = []
    for batch in bench.plan.batches:
        case = bench.case(NETWORK, "random", batch)
        for name in ("ibp", "crown_ibp"):
            rows += bounds.measure(bench, case, (NETWORK, "random"), METHODS[name])
    return {"batches": rows}


def table(rows: Sequence[BoundRow]) -> Table:
    """One line per row."""
    return bounds.table(rows, "Batches")
