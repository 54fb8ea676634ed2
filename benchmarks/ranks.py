"""`python -m benchmarks.ranks --data FOLDER`: how much faster two processes train than one, and what exchange costs.

Training is cnn3 on MNIST by PGPE on deeppoly bounds, one thread per process, through `python -m certtrain`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.cases import EPS, Images, make_case
from benchmarks.collectives import all_reduce_seconds, fit
from benchmarks.methods import NATIVE
from benchmarks.population import losses
from certtrain.gradients import GaussianNoise

BATCH = 64
# Images of the batches whose evaluation times give the fixed part and the part per image.
BATCHES = (16, 64)


@dataclass(frozen=True)
class Costs:
    """Measured times, in seconds, of one process with one thread.

    Attributes:
        parameters: Numbers |θ| of a gradient.
        member_fixed: Of evaluating a member, on no image.
        member_per_image: On top of it, for every image.
        pair_noise: Of drawing the noise of a pair and weighting it.
        latency: Of an all-reduce of next to nothing between two processes.
        bytes_per_second: Of a large one.
    """

    parameters: int
    member_fixed: float
    member_per_image: float
    pair_noise: float
    latency: float
    bytes_per_second: float


def measure_costs(data: str) -> Costs:
    """Times of the parts of a generation."""
    images = Images.test("mnist", data)
    cases = {batch: make_case("cnn3", images.first(batch), None, "mnist") for batch in BATCHES}
    seconds = {batch: _best(losses(case, NATIVE, EPS, "loop", 4)) / 4 for batch, case in cases.items()}
    small, large = BATCHES
    per_image = (seconds[large] - seconds[small]) / (large - small)
    params, noise, weights = cases[small].params, GaussianNoise(0, 0.01), torch.ones(16)

    def draw() -> None:
        for e in noise.sample(params, 0, range(16)).values():
            torch.tensordot(weights, e, dims=1)

    latency, rate = fit(all_reduce_seconds())
    numbers = sum(p.numel() for p in params.values())
    return Costs(numbers, seconds[small] - small * per_image, per_image, _best(draw) / 16, latency, rate)


def _best(call, rounds: int = 5) -> float:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def members_per_second(data: str, processes: int, population: int, steps: int) -> float:
    """The median over the generations of a run, without the first one, which sets things up."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "certtrain", "data=mnist", f"data.path={data}", "model=cnn3", f"eps={EPS}"]
        command += [
            f"pgpe.population_size={population}",
            "pgpe.strategy=loop",
            "pgpe.sigma=0.01",
            "relaxation=deeppoly",
        ]
        command += [f"data.batch_size={BATCH}", "data.validation=0", "certify.enabled=false", "trainer.accelerator=cpu"]
        command += [f"trainer.max_steps={steps}", "trainer.log_every_n_steps=1", f"hydra.run.dir={folder}/run"]
        command += ["trainer=ddp", f"trainer.devices={processes}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        rows = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    rates = [row["members_per_second"] for row in rows if "members_per_second" in row]
    return statistics.median(rates[1:])


def main(arguments: Sequence[str]) -> int:
    """Prints one line per run, then the ratio, then the costs; writes all of it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="MNIST as Parquet files")
    parser.add_argument("--population", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6, help="generations per run")
    parser.add_argument("--rounds", type=int, default=2, help="runs with one process and with two, in turns")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/ranks.json"), metavar="FILE")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(asked.rounds):
        for processes, own in rates.items():
            own.append(members_per_second(asked.data, processes, asked.population, asked.steps))
            print(f"{processes} process{'es' * (processes > 1)}: {own[-1]:.2f} members per second", flush=True)
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    print(f"two processes are {statistics.median(ratios):.2f} times as fast as one ({len(ratios)} pairs of runs)")
    costs = measure_costs(asked.data)
    print(costs)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({"members_per_second": rates, "ratios": ratios, "costs": asdict(costs)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
