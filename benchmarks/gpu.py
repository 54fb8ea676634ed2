"""Bounds and populations on a CUDA device, against auto_LiRPA on the device and against the CPU of the same machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import torch
from rich.table import Table

from benchmarks.cases import Bench, Case, Images
from benchmarks.methods import AUTO_LIRPA, METHODS, NATIVE, OWN, Method
from benchmarks.plans import Limits
from benchmarks.population import losses
from benchmarks.tables import make_table, milliseconds, number, ratio
from benchmarks.timing import Spread, alternate
from certtrain.errors import CerttrainError
from certtrain.networks import parameters, trace

BATCHES, QUICK_BATCHES = (16, 128), (2,)
MEMBERS, QUICK_MEMBERS = 64, 2
POPULATION_BATCH = 64
# Less time for each row than elsewhere: a card's clock is quieter than that of cores which other programs use.
SECONDS = 1.5
EPS = 0.1
NO_CARD = "gpu: torch sees no CUDA device, nothing to measure"


@dataclass(frozen=True)
class GpuRow:
    """One computation on both devices.

    Attributes:
        card: Name of the device.
        network: A choice in conf/model.
        batch: Images.
        what: A relaxation, or how a population is evaluated.
        grad: Whether the gradient in the parameters is computed, too.
        members: Of the population; 1 for plain bounds.
        device: Seconds on the device.
        cpu: Seconds on the CPU.
        ratio: CPU's time by the device's.
        auto_lirpa: Seconds of auto_LiRPA on the device, None for what it does not compute.
        against: auto_LiRPA's time by ours, both on the device.
        difference: The largest difference of bounds, relative to the largest bound; None where others are computed.
    """

    card: str
    network: str
    batch: int
    what: str
    grad: bool
    members: int
    device: Spread
    cpu: Spread
    ratio: Spread
    auto_lirpa: Spread | None
    against: Spread | None
    difference: float | None


def run(bench: Bench) -> dict[str, Sequence[GpuRow]]:
    """Every network, batch and relaxation on the first card; nothing where there is none."""
    return {"gpu": measure(bench, torch.device("cuda", 0)) if torch.cuda.is_available() else []}


def measure(bench: Bench, device: torch.device) -> list[GpuRow]:
    """The rows of a device."""
    quick, rows = bench.settings.quick, []
    for network, _ in bench.plan.networks:
        for batch in QUICK_BATCHES if quick else BATCHES:
            case = bench.case(network, "random", batch)
            for method in (*METHODS.values(), *OWN):
                rows += _bounds(bench, case, moved(case, device), network, method)
    network, members = bench.plan.networks[0][0], QUICK_MEMBERS if quick else MEMBERS
    case = bench.case(network, "random", QUICK_BATCHES[0] if quick else POPULATION_BATCH)
    return rows + _populations(bench, case, moved(case, device), network, members)


def moved(case: Case, device: torch.device) -> Case:
    """The same case on a device: buffers are there, too, and need not travel in every call."""
    module = copy.deepcopy(case.graph.module).to(device)
    params = {name: p.detach() for name, p in parameters(module).items()}
    images = Images(case.images.inputs.to(device), case.images.labels.to(device))
    return Case(trace(module, case.graph.input_shape), params, images)


def _bounds(bench: Bench, case: Case, there: Case, network: str, method: Method) -> list[GpuRow]:
    rows, relaxation = [], method.build(NATIVE)
    for grad in (False, True) if method.trains else (False,):
        what = _Work(network, method.name, grad, 1)
        difference = None
        if not grad:
            here = case.lower(relaxation)
            difference = float((there.lower(relaxation).cpu() - here).abs().max() / here.abs().max())
        calls = [there.call(relaxation, grad), case.call(relaxation, grad)]
        calls += _others(bench, there, method, grad)
        rows.append(_row(bench, what, there, calls, difference))
    return rows


def _others(bench: Bench, there: Case, method: Method, grad: bool) -> list[Callable[[], object]]:
    """auto_LiRPA's call on the device, if it computes the same, is installed, and gets through."""
    if method.name not in METHODS or not find_spec("auto_LiRPA"):
        return []
    call = there.call(method.build(AUTO_LIRPA), grad)
    try:
        _finished(call, there.images.inputs.device)
    except (RuntimeError, CerttrainError) as error:
        bench.say(f"auto_LiRPA gave up: {str(error).strip().splitlines()[-1]}")
        return []
    return [call]


def _populations(bench: Bench, case: Case, there: Case, network: str, members: int) -> list[GpuRow]:
    rows = []
    for strategy in ("vmap", "loop"):
        calls = [losses(c, NATIVE, EPS, strategy, members) for c in (there, case)]
        what = _Work(network, f"deeppoly losses, {strategy}", False, members)
        rows.append(_row(bench, what, there, calls, None))
    return rows


@dataclass(frozen=True)
class _Work:
    network: str
    name: str
    grad: bool
    members: int


def _row(
    bench: Bench, work: _Work, there: Case, calls: Sequence[Callable[[], object]], difference: float | None
) -> GpuRow:
    """`calls`: on the device, on the CPU and, where there is one, auto_LiRPA's on the device."""
    device, batch = there.images.inputs.device, len(there.images.labels)
    grad = " with gradients" if work.grad else ""
    bench.say(f"{work.network} on {device}, batch {batch}: {work.name}{grad}")
    on_device, on_cpu, *others = calls
    waiting = [partial(_finished, call, device) for call in (on_device, *others)]
    found, *their, expected = alternate([*waiting, on_cpu], _limits(bench))
    spreads = Spread.of(found), Spread.of(expected), _ratio(expected, found)
    return GpuRow(
        _card(device),
        work.network,
        batch,
        work.name,
        work.grad,
        work.members,
        *spreads,
        auto_lirpa=Spread.of(their[0]) if their else None,
        against=_ratio(their[0], found) if their else None,
        difference=difference,
    )


def _limits(bench: Bench) -> Limits:
    return replace(bench.plan.limits, seconds=min(SECONDS, bench.plan.limits.seconds))


def _ratio(of: Sequence[float], by: Sequence[float]) -> Spread:
    return Spread.of([a / b for a, b in zip(of, by, strict=True)])


def _finished(call: Callable[[], object], device: torch.device) -> None:
    """A device works on after a call has returned."""
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def table(rows: Sequence[GpuRow]) -> Table | str:
    """One line per row; one line in all where there is no card."""
    if not rows:
        return NO_CARD
    left = ("network", "batch", "what", "gradients")
    right = (
        "card ms",
        "auto_LiRPA ms",
        "auto_LiRPA / card",
        "CPU ms",
        "CPU / card",
        "members per second",
        "largest |difference|",
    )
    cells = [
        (
            row.network,
            str(row.batch),
            row.what,
            "yes" if row.grad else "no",
            milliseconds(row.device),
            "" if row.auto_lirpa is None else milliseconds(row.auto_lirpa),
            "" if row.against is None else ratio(row.against),
            milliseconds(row.cpu),
            ratio(row.ratio),
            "" if row.members == 1 else number(row.members / row.device.median),
            "" if row.difference is None else f"{row.difference:.1e}",
        )
        for row in rows
    ]
    return make_table(
        f"{rows[0].card} (median [quartiles]; differences relative to the largest bound)", left, right, cells
    )
