"""`python -m benchmarks.simulation --costs FILE`: time per generation on 1 to 1,024 devices, from measured costs.

A model, not a measurement: see docs/scaling.md for what it assumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log2
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.collectives import BYTES
from benchmarks.ranks import BATCH, Costs
from certtrain.report.style import BLUE, GREEN, GREY, ORANGE, drawing, save

DEVICES = tuple(2**k for k in range(11))
POPULATIONS = (64, 256, 1024)
# Assumptions about a cluster of GPUs, not measurements.
GPU_FACTOR = 100
COLORS = dict(zip(POPULATIONS, (BLUE, ORANGE, GREEN), strict=True))


@dataclass(frozen=True)
class Network:
    """What connects the devices; every message costs `latency` and its bytes over `bytes_per_second`."""

    latency: float
    bytes_per_second: float

    def all_reduce(self, devices: int, numbers: int) -> float:
        """Seconds of a ring or of a tree, whichever is faster."""
        if devices == 1:
            return 0.0
        transfer = BYTES * numbers / self.bytes_per_second
        ring = 2 * (devices - 1) * (self.latency + transfer / devices)
        tree = 2 * ceil(log2(devices)) * (self.latency + transfer)
        return min(ring, tree)

    def all_gather(self, devices: int, numbers: int) -> float:
        """Seconds of recursive doubling, after which every device has all `numbers`."""
        return 0.0 if devices == 1 else ceil(log2(devices)) * self.latency + BYTES * numbers / self.bytes_per_second


# Assumed, too: a message between nodes on a network of 100 Gbit/s.
GPU_NETWORK = Network(latency=20e-6, bytes_per_second=12.5e9)


@dataclass(frozen=True)
class Generation:
    """Seconds of the parts of a generation on the busiest device."""

    evaluation: float
    noise: float
    exchange: float

    @property
    def total(self) -> float:
        """Their sum: nothing overlaps."""
        return self.evaluation + self.noise + self.exchange


def generation(costs: Costs, network: Network, devices: int, members: int) -> Generation:
    """The busiest device's times.

    As long as there is a pair for every device, each evaluates its share on the whole batch (pgpe.parallel=population).
    Beyond, there are as many groups as pairs, and the devices of a group split the batch (hybrid).
    """
    groups = min(devices, members // 2)
    pairs, per_group = ceil(members / 2 / groups), devices // groups
    exchange = network.all_gather(groups, members) + network.all_reduce(devices, costs.parameters)
    exchange += network.all_reduce(per_group, 2 * pairs)
    images = ceil(BATCH / per_group)
    evaluation = 2 * pairs * (costs.member_fixed + costs.member_per_image * images)
    return Generation(evaluation, pairs * costs.pair_noise, exchange)


@dataclass(frozen=True)
class Scenario:
    """Devices and what connects them, under a title."""

    title: str
    costs: Costs
    network: Network


def scenarios(costs: Costs) -> tuple[Scenario, Scenario]:
    """What was measured, carried on; and assumed GPUs."""
    faster = replace(
        costs, member_fixed=costs.member_fixed / GPU_FACTOR, member_per_image=costs.member_per_image / GPU_FACTOR
    )
    measured = Network(costs.latency, costs.bytes_per_second)
    network = f"{1e6 * GPU_NETWORK.latency:g} µs, {GPU_NETWORK.bytes_per_second / 1e9:g} GB/s"
    return (
        Scenario("as measured: a core per rank, gloo on one machine", costs, measured),
        Scenario(f"assumed: {GPU_FACTOR} times faster, {network}", faster, GPU_NETWORK),
    )


def table(scenario: Scenario) -> Table:
    """Milliseconds per generation and the efficiency, for every number of devices and every population."""
    found = Table(title=scenario.title)
    found.add_column("devices", justify="right")
    for members in POPULATIONS:
        found.add_column(f"P={members}: ms", justify="right")
        found.add_column("efficiency", justify="right")
    for devices in DEVICES:
        cells = [str(devices)]
        for members in POPULATIONS:
            one, many = (generation(scenario.costs, scenario.network, n, members).total for n in (1, devices))
            cells += [f"{1e3 * many:,.3g}", f"{one / many / devices:.0%}"]
        found.add_row(*cells)
    return found


def draw(found: Sequence[Scenario], path: Path) -> Path:
    """Time per generation against devices, one panel per scenario."""
    with drawing():
        from matplotlib.figure import Figure

        canvas = Figure(figsize=(11, 4.5), layout="constrained")
        for ax, scenario in zip(canvas.subplots(1, len(found)), found, strict=True):
            _panel(ax, scenario)
        return save(canvas, path)


def _panel(ax: Any, scenario: Scenario) -> None:
    for members, color in COLORS.items():
        parts = [generation(scenario.costs, scenario.network, n, members) for n in DEVICES]
        ax.plot(DEVICES, [p.total for p in parts], "o-", ms=3, color=color, label=f"population {members}")
        ideal = [parts[0].total / n for n in DEVICES]
        ax.plot(DEVICES, ideal, ":", lw=1, color=color, label="_no legend")
    exchange = [generation(scenario.costs, scenario.network, n, max(POPULATIONS)).exchange for n in DEVICES[1:]]
    ax.plot(DEVICES[1:], exchange, "--", lw=1, color=GREY, label=f"exchange, population {max(POPULATIONS)}")
    ax.plot([], [], ":", lw=1, color=GREY, label="no exchange, even shares")
    ax.set(xscale="log", yscale="log", xlabel="devices", ylabel="seconds per generation", title=scenario.title)
    ax.set_xticks(DEVICES, [str(n) for n in DEVICES])
    ax.minorticks_off()
    ax.legend()


def main(arguments: Sequence[str]) -> int:
    """Prints a table per scenario and writes the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--costs", type=Path, required=True, metavar="FILE", help="what benchmarks.ranks has written")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/scaling_simulation.png"), metavar="FILE")
    asked = parser.parse_args(arguments)
    found = scenarios(Costs(**json.loads(asked.costs.read_text())["costs"]))
    console = Console(width=100)
    for scenario in found:
        console.print(table(scenario))
    console.print(f"figure in {draw(found, asked.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
