"""Bounds of margins on one batch, with and without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.cases import Bench, Case
from benchmarks.methods import AUTO_LIRPA, METHODS, NATIVE, Method
from benchmarks.plans import Limits
from benchmarks.tables import COMPARISON, comparison, make_table, number
from benchmarks.timing import Comparison, compare


@dataclass(frozen=True)
class BoundRow:
    """One network, relaxation and mode.

    Attributes:
        network: A choice in conf/model.
        weights: "random" or "ibp".
        batch: Images.
        method: A key of METHODS.
        grad: Whether the gradient in the parameters is computed, too.
        times: Seconds of one call.
        difference: The largest absolute difference of the two tools' bounds; None where they compute different things.
    """

    network: str
    weights: str
    batch: int
    method: str
    grad: bool
    times: Comparison
    difference: float | None


def run(bench: Bench) -> dict[str, Sequence[BoundRow]]:
    """Every network, kind of weights and method."""
    rows = []
    for network, batch in bench.plan.networks:
        for weights in bench.weights:
            case = bench.case(network, weights, batch)
            for method in METHODS.values():
                rows += measure(bench, case, (network, weights), method)
    return {"bounds": rows}


def measure(bench: Bench, case: Case, name: tuple[str, str], method: Method) -> list[BoundRow]:
    """Rows without and, for those that train, with gradients."""
    rows, batch = [], len(case.images.labels)
    for grad in (False, True) if method.trains else (False,):
        bench.say(f"{name[0]}, {name[1]} weights, batch {batch}: {method.name}{' with gradients' if grad else ''}")
        times, difference = _compare(case, method, grad, bench.plan.limits)
        rows.append(BoundRow(*name, batch, method.name, grad, times, difference))
    return rows


def _compare(case: Case, method: Method, grad: bool, limits: Limits) -> tuple[Comparison, float | None]:
    native, other = method.build(NATIVE), method.build(AUTO_LIRPA)
    times = compare(case.call(native, grad), case.call(other, grad), limits)
    if not method.same or grad:
        return times, None
    return times, float((case.lower(native) - case.lower(other)).abs().max())


def table(rows: Sequence[BoundRow], title: str = "Bounds of margins") -> Table:
    """One line per row."""
    left = ("network", "weights", "batch", "method", "gradients")
    cells = [
        (
            row.network,
            row.weights,
            str(row.batch),
            row.method,
            "yes" if row.grad else "no",
            *comparison(row.times),
            "" if row.difference is None else number(row.difference),
        )
        for row in rows
    ]
    return make_table(f"{title} (median [quartiles])", left, (*COMPARISON, "largest |difference|"), cells)
