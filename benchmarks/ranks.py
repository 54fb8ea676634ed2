"""`python -m benchmarks.ranks --data FOLDER`: how much faster two processes are than one, and what exchange costs.

A generation is an estimate of PGPE for cnn3 on MNIST with deeppoly bounds, with one thread per process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.cases import EPS, Images, make_case
from benchmarks.collectives import all_reduce_seconds, fit, two_processes
from benchmarks.methods import NATIVE
from benchmarks.population import METHOD, SIGMA, losses
from benchmarks.timing import Spread
from certtrain.gradients import PGPE, Alone, Distributed, GaussianNoise, Layout, Ranks
from certtrain.losses import Problem, RobustCrossEntropy

BATCH = 64
# Images of the batches whose evaluation times give the fixed part and the part per image.
BATCHES = (1, 64)


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
    params, noise, weights = cases[small].params, GaussianNoise(0, SIGMA), torch.ones(16)

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


def generations(data: str, population: int, batch: int, rounds: int) -> list[tuple[float, float]]:
    """Seconds of generations by the first of two processes while the other waits, and by both, in turns."""
    case = make_case("cnn3", Images.test("mnist", data).first(batch), None, "mnist")
    both, loss = Distributed(Layout.population(2), timeout_s=600), RobustCrossEntropy()
    problem = Problem.within(case.graph, METHOD.build(NATIVE), case.images.inputs, case.images.labels, EPS)
    estimator = PGPE(SIGMA, population, strategy="loop")

    def seconds(ranks: Ranks) -> float:
        dist.barrier()
        start = time.perf_counter()
        if both.rank == 0 or ranks is both:
            estimator.estimate(lambda p: loss(problem, p), case.params, 0, ranks=ranks)
        return time.perf_counter() - start

    seconds(both)  # sets up what is set up once
    return [(seconds(Alone()), seconds(both)) for _ in range(rounds)]


def main(arguments: Sequence[str]) -> int:
    """Prints times, their ratio and the costs; writes all of it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="MNIST as Parquet files")
    parser.add_argument("--population", type=int, default=32)
    parser.add_argument("--batch", type=int, default=BATCH, help="images")
    parser.add_argument("--rounds", type=int, default=10, help="generations by one process and by two, in turns")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/ranks.json"), metavar="FILE")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pairs = two_processes(generations, asked.data, asked.population, asked.batch, asked.rounds)
    ratio = Spread.of([one / two for one, two in pairs])
    print(f"seconds per generation: one process {_middle(one for one, _ in pairs)}, two {_middle(t for _, t in pairs)}")
    print(
        f"two processes are {ratio.median:.2f} times as fast as one (median of {ratio.runs} pairs of generations, "
        f"quartiles {ratio.lower_quartile:.2f} and {ratio.upper_quartile:.2f})",
        flush=True,
    )
    costs = measure_costs(asked.data)
    print(costs)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({"generations": pairs, "costs": asdict(costs)}) + "\n")
    return 0


def _middle(seconds: Iterable[float]) -> str:
    return f"{statistics.median(seconds):.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
