"""How the time of the native deeppoly grows, as the exponent of a power law."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log

from rich.table import Table

from benchmarks.cases import EPS, Bench, make_case
from benchmarks.methods import METHODS, NATIVE
from benchmarks.population import losses
from benchmarks.tables import make_table, milliseconds
from benchmarks.timing import Call, Spread, alternate

METHOD = METHODS["deeppoly"]
BATCH = 8


@dataclass(frozen=True)
class ScalingRow:
    """Times along one axis.

    Attributes:
        axis: What grows.
        where: On which network and batch.
        values: Of the axis.
        times: Seconds at each value.
        exponent: p of the fitted time ~ value^p.
    """

    axis: str
    where: str
    values: tuple[int, ...]
    times: tuple[Spread, ...]
    exponent: float


@dataclass(frozen=True)
class Axis:
    """What an axis stands for, and how to make the call at one of its values."""

    where: str
    call: Callable[[Bench, int], Call]


def _batch(bench: Bench, batch: int) -> Call:
    return bench.case("cnn3", "random", batch).call(METHOD.build(NATIVE), grad=False)


def _members(bench: Bench, members: int) -> Call:
    return losses(bench.case("cnn3", "random", BATCH), NATIVE, EPS, "loop", members)


def _width(bench: Bench, factor: int) -> Call:
    return _network(bench, [[16 * factor, 5, 2, 2], [32 * factor, 4, 2, 1]])


def _depth(bench: Bench, count: int) -> Call:
    return _network(bench, [[16, 4, 2, 1], *[[16, 3, 1, 1]] * (count - 1)])


def _network(bench: Bench, convolutions: list[list[int]]) -> Call:
    overrides = (f"model.convolutions={convolutions}", "model.widths=[]")
    case = make_case("cnn3", bench.images.first(BATCH), None, "mnist", *overrides)
    return case.call(METHOD.build(NATIVE), grad=False)


AXES: Mapping[str, Axis] = {
    "batch": Axis("cnn3, images", _batch),
    "members": Axis(f"cnn3 in a loop, batch {BATCH}, members", _members),
    "width": Axis(f"cnn3 with all channels times, batch {BATCH}", _width),
    "depth": Axis(f"layers of 16 channels on 14x14 pixels, batch {BATCH}", _depth),
}


def run(bench: Bench) -> dict[str, Sequence[ScalingRow]]:
    """Every axis of the plan; its points take turns."""
    rows = []
    for name, values in bench.plan.scaling:
        axis = AXES[name]
        bench.say(f"scaling with {name}: {axis.where}")
        found = alternate([axis.call(bench, value) for value in values], bench.plan.limits)
        times = tuple(Spread.of(seconds) for seconds in found)
        rows.append(ScalingRow(name, axis.where, values, times, exponent(values, [t.median for t in times])))
    return {"scaling": rows}


def exponent(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of the line through the logarithms."""
    return statistics.linear_regression([log(v) for v in values], [log(s) for s in seconds]).slope


def table(rows: Sequence[ScalingRow]) -> Table:
    """One line per point, the exponent beside the last of each axis."""
    cells = []
    for row in rows:
        for value, time in zip(row.values, row.times, strict=True):
            last = value == row.values[-1]
            cells.append((row.axis, row.where, str(value), milliseconds(time), f"{row.exponent:.2f}" if last else ""))
    title = f"Scaling of native {METHOD.name} (median [quartiles])"
    return make_table(title, ("axis", "where"), ("value", "ms", "exponent"), cells)
