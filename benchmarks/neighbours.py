"""Times of jobs alone and beside a second job on the same cores; every start is a process of its own.

A job has one thread or all of them, which wait for each other as the OpenMP library has it by default, or as
`python -m certtrain` asks it to; what the user's environment says about that is left out. The second job has two
threads that wait by default: those disturb most.

`python -m benchmarks.neighbours "cnn3, 64: deeppoly"` is such a process: it prints the median seconds of a call. With
`--forever` it is the second job: it says when it begins, and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import select
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.markup import escape
from rich.table import Table

from benchmarks import processes
from benchmarks.cases import Bench, Images, make_case
from benchmarks.methods import METHODS, NATIVE
from benchmarks.plans import FULL, QUICK, Footprint, Neighbours, Population
from benchmarks.population import METHOD, losses
from benchmarks.tables import colored, make_table, milliseconds, number
from benchmarks.timing import Call, Spread, alternate
from certtrain.cli.process.memory import keep_freed_memory
from certtrain.cli.process.waiting import SETTINGS, wait_briefly
from certtrain.errors import CerttrainError

# Ways to wait.
DEFAULT, CERTTRAIN = "default", "certtrain"
THREADS_OF_SECOND = 2
# How much longer than with one thread a call beside the second job may take.
TARGET = 1.3
READY = "ready"


@dataclass(frozen=True)
class Manner:
    """How a job computes: its threads, and how they wait."""

    threads: int
    waiting: str


@dataclass(frozen=True)
class NeighbourRow:
    """One job with all threads, which wait in one way, and with one thread.

    Attributes:
        job: Network, batch and bounds.
        threads: All of them.
        waiting: DEFAULT or CERTTRAIN.
        alone_one: Median seconds of a call with one thread, for each start.
        alone_all: The same with all threads.
        beside_one: Beside the second job, with one thread.
        beside_all: The same with all threads.
        ratio: The slowest start of `beside_all` over the median of `beside_one`.
    """

    job: str
    threads: int
    waiting: str
    alone_one: tuple[float, ...]
    alone_all: tuple[float, ...]
    beside_one: tuple[float, ...]
    beside_all: tuple[float, ...]
    ratio: float


def run(bench: Bench) -> dict[str, Sequence[NeighbourRow]]:
    """Every case of the plan, alone and then beside the second job."""
    assert bench.images  # written to the file that the processes read
    # One thread waits for no other: how does not matter.
    one, *several = (Manner(1, CERTTRAIN), *(Manner(torch.get_num_threads(), how) for how in (DEFAULT, CERTTRAIN)))
    rows = []
    for case in bench.plan.neighbours.cases:
        alone = _starts(bench, case, (one, *several), "alone")
        with second_job(bench):
            beside = _starts(bench, case, (one, *several), "beside a second job")
        for manner in several:
            times = (alone[one], alone[manner], beside[one], beside[manner])
            ratio = max(beside[manner]) / statistics.median(beside[one])
            rows.append(NeighbourRow(label(case), manner.threads, manner.waiting, *times, ratio))
    return {"neighbours": rows}


def label(case: Footprint | Population) -> str:
    """What tables call a case, and the command line of its process."""
    if isinstance(case, Footprint):
        return f"{case.network}, {case.batch}: {case.method}" + " with gradients" * case.grad
    return f"{case.model} on {case.data}, {case.batch}: {METHOD.name} of {case.members} members"


def _starts(
    bench: Bench, case: Footprint | Population, manners: Sequence[Manner], where: str
) -> dict[Manner, tuple[float, ...]]:
    """Median seconds of a call in every start; the manners take turns."""
    found: dict[Manner, list[float]] = {manner: [] for manner in manners}
    starts = bench.plan.neighbours.starts
    for start in range(1, starts + 1):
        for manner, own in found.items():
            how = f"{manner.threads} thread{'s' * (manner.threads != 1)}, waiting: {manner.waiting}"
            bench.say(f"{label(case)} {where}, {how}, start {start} of {starts}")
            command, environment = process_of(bench, case, manner)
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise _failure(case, done.returncode, done.stderr)
            own.append(float(done.stdout.splitlines()[-1]))
    return {manner: tuple(own) for manner, own in found.items()}


@contextmanager
def second_job(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """The second job, which computes meanwhile and does not run any more afterwards, whatever happens.

    Raises:
        CerttrainError: If it ended by itself: what was measured was then measured alone.
    """
    case = bench.plan.neighbours.second
    command, environment = process_of(bench, case, Manner(THREADS_OF_SECOND, DEFAULT))
    pipe = subprocess.PIPE
    # Its input closes with this process, even if this one is killed.
    with subprocess.Popen(
        [*command, "--forever"], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if process.stdout.readline().strip() == READY:
                yield process
                if process.poll() is None:
                    return
            raise _failure(case, process.wait(), process.stderr.read())
        finally:
            process.kill()


def process_of(bench: Bench, case: Footprint | Population, manner: Manner) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a case's process."""
    command = [sys.executable, "-m", "benchmarks.neighbours", label(case)]
    command += [f"--threads={manner.threads}", f"--images={bench.images_file}"]
    command += ["--quick"] * bench.settings.quick + ["--keep-memory"] * bench.settings.keep_memory
    environment = {name: value for name, value in processes.environment().items() if name not in SETTINGS}
    if manner.waiting == CERTTRAIN:
        wait_briefly(environment)
    return command, environment


def _failure(case: Footprint | Population, code: int, errors: str) -> CerttrainError:
    said = errors.strip().splitlines()
    return CerttrainError(f"{label(case)}: its process ended: {said[-1] if said else f'exit code {code}'}")


def table(rows: Sequence[NeighbourRow]) -> Table:
    """One line per row."""
    left = ("job", "waiting", "threads")
    right = ("1 thread ms", "all ms", "beside: 1 thread ms", "all, each start ms", "slowest / 1 thread")
    cells = []
    for row in rows:
        usual = (milliseconds(Spread.of(seconds)) for seconds in (row.alone_one, row.alone_all, row.beside_one))
        each = ", ".join(number(1000 * seconds) for seconds in sorted(row.beside_all))
        ratio = colored(f"{row.ratio:.2f}", TARGET / row.ratio)
        cells.append((escape(row.job), row.waiting, str(row.threads), *usual, each, ratio))
    title = f"Alone and beside a second job of {THREADS_OF_SECOND} threads (medians of starts [quartiles])"
    return make_table(title, left, right, cells)


def prepare(case: Footprint | Population, images: Images) -> Call:
    """What a job computes, ready to be timed; the images are for bounds, a population has its own."""
    if isinstance(case, Footprint):
        return make_case(case.network, images.first(case.batch)).call(METHODS[case.method].build(NATIVE), case.grad)
    own = Images.test(case.data, None).first(case.batch)
    return losses(make_case(case.model, own, None, case.data), NATIVE, case.eps, case.strategies[0], case.members)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process of one job."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neighbours", description=__doc__)
    parser.add_argument("job", help="as the table calls it")
    parser.add_argument("--quick", action="store_true", help="a job of python -m benchmarks --quick")
    parser.add_argument("--images", type=Path, help="a file that the benchmarks wrote; default: random images")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--keep-memory", action="store_true", help="keep freed memory, as python -m certtrain does")
    parser.add_argument("--forever", action="store_true", help="compute until standard input ends")
    asked = parser.parse_args(arguments)
    plan = (QUICK if asked.quick else FULL).neighbours
    jobs = {label(case): case for case in (*plan.cases, plan.second)}
    if asked.job not in jobs:
        parser.error(f"'{asked.job}' is none of {'; '.join(jobs)}")
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    if asked.keep_memory:
        keep_freed_memory()
    try:
        call = prepare(jobs[asked.job], Images.random() if asked.images is None else Images.saved(asked.images))
        _compute(call, plan, asked.forever)
    except CerttrainError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    return 0


def _compute(call: Call, plan: Neighbours, forever: bool) -> None:
    if not forever:
        (seconds,) = alternate([call], plan.limits)
        print(statistics.median(seconds))
        return
    call()
    print(READY, flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        call()


if __name__ == "__main__":
    sys.exit(main())
