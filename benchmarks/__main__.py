"""`python -m benchmarks`: measures, prints tables, writes results.json and results.png."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from benchmarks.plans import plan_for
from benchmarks.settings import SECTIONS, Settings
from certtrain.cli.process.waiting import wait_briefly
from certtrain.errors import CerttrainError, ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.machine import Machine

Results = dict[str, Sequence[Any]]
# Columns of a table in a file or a pipe.
WIDTH = 160


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse_arguments(arguments: Sequence[str]) -> Settings:
    """Reads the command line.

    Raises:
        ConfigError: One line about what is wrong.
    """
    parser = _Parser(
        prog="python -m benchmarks",
        description="Measures certtrain's bounds against auto_LiRPA, in turns, and prints ratios: above 1, native is "
        "faster. Takes half an hour or so; nothing else should run meanwhile.",
    )
    parser.add_argument("--only", type=_sections, default=SECTIONS, metavar="NAMES", help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, random weights: shows that it works")
    parser.add_argument("--data", metavar="PATH", help="folder with MNIST; none: random images; default: from the hub")
    out = "results.json and results.png are replaced here; default: %(default)s"
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"), metavar="DIR", help=out)
    parser.add_argument("--threads", type=_positive, metavar="N", help="of torch; default: its own choice")
    parser.add_argument("--keep-memory", action="store_true", help="keep freed memory, as python -m certtrain does")
    network = "in certify: those whose properties are searched; default: all on MNIST"
    parser.add_argument("--search-networks", type=_names, metavar="NAMES", help=network)
    parser.add_argument("--search-seconds", type=_seconds, metavar="S", help="in certify: for each property")
    asked = parser.parse_args(arguments)
    return Settings(
        asked.only,
        asked.quick,
        asked.data,
        asked.out,
        asked.threads,
        asked.keep_memory,
        asked.search_networks,
        asked.search_seconds,
    )


def _sections(text: str) -> tuple[str, ...]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is none of {', '.join(SECTIONS)}")
    return tuple(name for name in SECTIONS if name in names)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got '{text}'")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of threads, got '{text}'")
    return int(text)


def measure(settings: Settings, console: Console) -> None:
    """Runs the sections; after each, prints its tables and writes all results so far."""
    # Here, because torch takes seconds to import.
    import torch

    from benchmarks import (
        batches,
        bounds,
        cascade,
        certify,
        estimators,
        gpu,
        losses,
        memory,
        neighbours,
        peak,
        population,
        scaling,
    )
    from benchmarks.cases import Bench
    from benchmarks.figure import draw
    from benchmarks.machine import Machine
    from certtrain.cli.process.memory import keep_freed_memory

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    kept = settings.keep_memory and keep_freed_memory()
    machine, results = Machine.this(), Results()
    settings.out.mkdir(parents=True, exist_ok=True)
    console.print(str(machine), highlight=False)
    memory_is = "kept" if kept else "given back"
    console.print(f"freed memory is {memory_is}; how threads wait: {machine.waiting}", highlight=False)
    modules = (bounds, batches, population, memory, scaling, peak, neighbours, gpu, certify, losses, estimators)
    sections = dict(zip(SECTIONS, modules, strict=True))
    tables = {name: module.table for name, module in sections.items() if module is not peak}
    tables |= {
        "stages": cascade.table,
        "alpha_crown": certify.alpha_table,
        "rates": peak.rates_table,
        "operations": peak.operations_table,
    }
    tables |= {"noise": estimators.noise_table}
    for name in settings.sections:
        with _status(console) as say:
            found = sections[name].run(Bench(settings, say))
        results |= found
        for key, rows in found.items():
            console.print(tables[key](rows))
        _write(settings.out / "results.json", settings, machine, kept, results)
        picture = draw(results, str(machine), settings.out / "results.png")
    console.print(f"results in {settings.out / 'results.json'}" + (f" and {picture}" if picture else ""))


def _write(path: Path, settings: Settings, machine: Machine, kept: bool, results: Results) -> None:
    asked = {**asdict(settings), "out": str(settings.out), "freed_memory_is_kept": kept}
    tables = {name: [asdict(row) for row in rows] for name, rows in results.items()}
    content = {"machine": asdict(machine), "settings": asked, "plan": asdict(plan_for(settings)), "tables": tables}
    path.write_text(json.dumps(content, indent=1) + "\n")


@contextmanager
def _status(console: Console) -> Iterator[Callable[[str], None]]:
    """Shows what is being measured: a live line in a terminal, a line each elsewhere."""
    start = time.monotonic()
    if console.is_terminal:
        with console.status("") as status:
            yield lambda text: status.update(text)
    else:
        yield lambda text: console.print(f"{time.monotonic() - start:6.0f} s  {text}", highlight=False)


def main() -> int:
    """Runs the command line; the exit code is 0, or 2 after one line about what is wrong."""
    wait_briefly(os.environ)  # first, as python -m certtrain does: torch reads it while it is loaded
    try:
        settings = parse_arguments(sys.argv[1:])
        from rich.console import Console

        console = Console()
        measure(settings, console if console.is_terminal else Console(width=WIDTH))
    except (CerttrainError, OSError) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
