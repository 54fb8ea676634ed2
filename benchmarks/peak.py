"""Operations of each native relaxation, and how near its speed comes to that of the machine's matrix product.

Counted are products: convolutions, transposed convolutions and matrix products, two operations for each multiply-add.
Element-wise steps and products with a single vector are not, although they take time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import Bench, Case
from benchmarks.methods import METHODS, NATIVE, OWN, Method
from benchmarks.plans import Limits
from benchmarks.tables import make_table, milliseconds, number
from benchmarks.timing import Spread, alternate
from certtrain.bounds.executors import Compiled, Executor, TensorOperations
from certtrain.bounds.relaxation.base import BackSubstitution
from certtrain.bounds.rows.descent import Descent
from certtrain.bounds.rows.selection import Selection
from certtrain.networks.kernels import matmul

GIGA = 1e9
PRODUCTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "certtrain.networks.kernels.matmul": matmul,
    "torch.mm": torch.mm,
}


@dataclass(frozen=True)
class RateRow:
    """A matrix product [m, k] x [k, n] in float32.

    Attributes:
        product: Which function.
        m, k, n: The sizes.
        gflops: 10^9 operations per second of its fastest run.
    """

    product: str
    m: int
    k: int
    n: int
    gflops: float


@dataclass(frozen=True)
class OperationRow:
    """One relaxation on one network.

    Attributes:
        network: A choice in conf/model.
        weights: "random" or "ibp".
        batch: Images.
        method: Its name.
        gflop: 10^9 operations of one call.
        seconds: Of one call.
        gflops: 10^9 operations per second, by the median.
        share: Of the fastest matrix product's rate.
    """

    network: str
    weights: str
    batch: int
    method: str
    gflop: float
    seconds: Spread
    gflops: float
    share: float


def run(bench: Bench) -> dict[str, Sequence[Any]]:
    """The machine's rates, then every network, kind of weights and method."""
    rates = _rates(bench)
    peak = max(row.gflops for row in rates)
    rows = []
    for network, batch in bench.plan.networks:
        for weights in bench.weights:
            case = bench.case(network, weights, batch)
            for method in (*METHODS.values(), *OWN):
                bench.say(f"operations of {method.name} on {network}, {weights} weights, batch {batch}")
                gflop, seconds = _measure(case, method, bench.plan.limits)
                rate = gflop / seconds.median
                rows.append(OperationRow(network, weights, batch, method.name, gflop, seconds, rate, rate / peak))
    return {"rates": rates, "operations": rows}


def _rates(bench: Bench) -> list[RateRow]:
    rows = []
    for m, k, n in bench.plan.products:
        bench.say(f"matrix product of [{m}, {k}] and [{k}, {n}]")
        a, b = torch.rand(m, k), torch.rand(k, n)
        with torch.no_grad():
            found = alternate([_product(product, a, b) for product in PRODUCTS.values()], bench.plan.limits)
        for name, seconds in zip(PRODUCTS, found, strict=True):
            rows.append(RateRow(name, m, k, n, 2 * m * k * n / min(seconds) / GIGA))
    return rows


def _product(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    return lambda: product(a, b)


def _measure(case: Case, method: Method, limits: Limits) -> tuple[float, Spread]:
    """Operations in 10^9, and seconds."""
    relaxation = method.build(NATIVE)
    (seconds,) = alternate([case.call(relaxation, grad=False)], limits)
    counting = _Counting()
    if isinstance(relaxation, BackSubstitution):
        relaxation = replace(relaxation, executor=TensorOperations((counting,)))
    with FlopCounterMode(display=False) as counter:
        case.lower(relaxation)
    return (counter.get_total_flops() + sum(counting.found)) / GIGA, Spread.of(seconds)


@dataclass(frozen=True)
class _Counting(Executor):
    """Compiled code, and the operations of each of its calls, which torch does not see."""

    compiled: Compiled = field(default_factory=Compiled)
    found: list[int] = field(default_factory=list)

    def covers(self, descent: Descent) -> int | None:
        return self.compiled.covers(descent)

    def lower(self, descent: Descent, selection: Selection, wanted: Tensor | None = None) -> Tensor:
        job = self.compiled.job(descent, selection.indices())
        self.found.append(job.bundled.operations * len(job.rows))
        return self.compiled.lower(descent, selection, wanted)


def rates_table(rows: Sequence[RateRow]) -> Table:
    """One line per product and size, the fastest of each product marked."""
    best = {name: max(row.gflops for row in rows if row.product == name) for name in PRODUCTS}
    cells = [
        (row.product, f"{row.m} x {row.k} x {row.n}", number(row.gflops), "best" * (row.gflops == best[row.product]))
        for row in rows
    ]
    return make_table("Matrix products of this machine", ("product", "sizes"), ("GFLOP/s", ""), cells)


def operations_table(rows: Sequence[OperationRow]) -> Table:
    """One line per row."""
    cells = [
        (
            *(row.network, row.weights, str(row.batch), row.method),
            *(number(row.gflop), milliseconds(row.seconds), number(row.gflops), f"{100 * row.share:.1f}"),
        )
        for row in rows
    ]
    left, right = ("network", "weights", "batch", "method"), ("GFLOP", "native ms", "GFLOP/s", "% of peak")
    return make_table("Operations against the machine's best matrix product", left, right, cells)
