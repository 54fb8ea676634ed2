"""Peak memory of one bound computation, each in a process of its own.

`python -m benchmarks.memory native deeppoly cnn5 16 random` is such a process: it prints the MiB and the seconds that
the computation took beyond what the process already held. Freed memory is never kept: it would serve the computation
without being counted.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from benchmarks import processes
from benchmarks.cases import Bench, Case, Images, make_case
from benchmarks.methods import AUTO_LIRPA, METHODS, NATIVE
from benchmarks.plans import Footprint
from benchmarks.tables import colored, make_table, number
from benchmarks.weights import checkpoint
from certtrain.bounds import build
from certtrain.errors import CerttrainError

MEGABYTE = 1 << 20
# A network so small that bounding it leaves no trace in the peak.
TINY = ("model.convolutions=[[2, 7, 7, 0]]", "model.widths=[]")


@dataclass(frozen=True)
class Peak:
    """What one computation took."""

    mib: float
    seconds: float


@dataclass(frozen=True)
class MemoryRow:
    """One computation by both tools.

    Attributes:
        network: A choice in conf/model.
        weights: "random" or "ibp".
        batch: Images.
        method: A key of METHODS.
        grad: Whether the gradient in the parameters is computed, too.
        native: None if the process died, of lack of memory most likely.
        auto_lirpa: The same, or None because it was not asked for.
        compared: Whether it was asked for.
        ratio: Of the two peaks.
    """

    network: str
    weights: str
    batch: int
    method: str
    grad: bool
    native: Peak | None
    auto_lirpa: Peak | None
    compared: bool
    ratio: float | None


def run(bench: Bench) -> dict[str, Sequence[MemoryRow]]:
    """Every footprint of the plan."""
    assert bench.images  # written to the file that the processes read
    rows = []
    for what in bench.plan.footprints:
        gradients = " with gradients" if what.grad else ""
        bench.say(f"memory of {what.method}{gradients} on {what.network}, batch {what.batch}")
        native = _peak(bench, what, NATIVE)
        other = _peak(bench, what, AUTO_LIRPA) if what.compared else None
        ratio = other.mib / native.mib if native and other and native.mib else None
        rows.append(
            MemoryRow(what.network, "random", what.batch, what.method, what.grad, native, other, what.compared, ratio)
        )
    return {"memory": rows}


def _peak(bench: Bench, what: Footprint, backend: str) -> Peak | None:
    """Asks a fresh process."""
    settings = bench.settings
    command = [sys.executable, "-m", "benchmarks.memory", backend, what.method, what.network, str(what.batch), "random"]
    command += [f"--images={bench.images_file}", f"--out={settings.out}"]
    command += ["--grad"] * what.grad
    command += [] if settings.threads is None else [f"--threads={settings.threads}"]
    done = subprocess.run(command, env=processes.environment(), capture_output=True, text=True, check=False)
    return Peak(**json.loads(done.stdout.splitlines()[-1])) if done.returncode == 0 else None


def measure(case: Case, backend: str, method: str, grad: bool) -> Peak:
    """Memory and time of the first computation on a network, after everything that is done only once."""
    relaxation, images = METHODS[method].build(backend), case.images.first(1)
    make_case("cnn3", images, None, "mnist", *TINY).call(relaxation, grad)()
    # Tracing the network is auto_LiRPA's first step and depends on these options.
    options = METHODS[method].options if backend == AUTO_LIRPA else {}
    Case(case.graph, case.params, images).lower(build("ibp", backend, **options))
    call = case.call(relaxation, grad)
    forget_peak()
    before, start = peak_bytes(), time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    return Peak((peak_bytes() - before) / MEGABYTE, seconds)


def forget_peak() -> bool:
    """Makes the peak what the process uses now; False where it cannot: the peak of the preparation counts there."""
    try:
        # Freed memory that the process kept would serve the computation without being counted.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True


def peak_bytes() -> int:
    """What the process has held at most since `forget_peak`; where that is not known, since it began.

    Not `ru_maxrss` on Linux: a process begins with that of the one that started it, and nothing resets it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def table(rows: Sequence[MemoryRow]) -> Table:
    """One line per row."""
    left = ("network", "weights", "batch", "method", "gradients")
    right = ("native MiB", "native s", "auto_LiRPA MiB", "auto_LiRPA s", "ratio of MiB")
    cells = []
    for row in rows:
        words = (row.network, row.weights, str(row.batch), row.method, "yes" if row.grad else "no")
        other = _cells(row.auto_lirpa) if row.compared else ("", "")
        ratio = "" if row.ratio is None else colored(f"{row.ratio:.2f}", row.ratio)
        cells.append((*words, *_cells(row.native), *other, ratio))
    return make_table("Peak memory of one computation, each in a fresh process", left, right, cells)


def _cells(peak: Peak | None) -> tuple[str, str]:
    return ("died", "") if peak is None else (number(peak.mib), number(peak.seconds))


def main(arguments: Sequence[str] | None = None) -> int:
    """The process that measures one computation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("backend", choices=(NATIVE, AUTO_LIRPA))
    parser.add_argument("method", choices=tuple(METHODS))
    parser.add_argument("network", help="a choice in conf/model")
    parser.add_argument("batch", type=int)
    parser.add_argument("weights", choices=("random", "ibp"), help="ibp needs an earlier run of the benchmarks")
    parser.add_argument("--grad", action="store_true", help="with the gradient in the parameters")
    parser.add_argument("--images", type=Path, help="a file that the benchmarks wrote; default: random images")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), help="where trained weights lie")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args(arguments)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    images = Images.random() if asked.images is None else Images.saved(asked.images)
    trained = None if asked.weights == "random" else checkpoint(asked.out, asked.network)
    try:
        case = make_case(asked.network, images.first(asked.batch), trained)
        found = measure(case, asked.backend, asked.method, asked.grad)
    except CerttrainError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"mib": found.mib, "seconds": found.seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
