"""`python -m benchmarks.vnncomp`: asks sets of questions, prints a line for each and a table of what was solved."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.tables import make_table
from benchmarks.vnncomp.contest import SOLVED, Answered, Contest
from benchmarks.vnncomp.sets import SETS, set_of
from benchmarks.vnncomp.workshop import OUT, Workshop
from certtrain.errors import CerttrainError, ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains and writes what is missing, asks what has no answer, and shows all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vnncomp", description=__doc__)
    parser.add_argument("--only", default=",".join(SETS), metavar="SETS", help="default: %(default)s")
    parser.add_argument("--networks", metavar="NAMES", help="of the sets, these networks alone; default: all")
    parser.add_argument("--seconds", type=float, metavar="S", help="for each question; default: the competition's")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each process; default: %(default)s")
    parser.add_argument("--mnist", metavar="PATH", help="folder with MNIST; default: from the hub")
    parser.add_argument("--cifar10", metavar="PATH", help="folder with CIFAR-10; default: from the hub")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--fast", action="store_true", help="networks after one epoch, kept apart: shows that it works")
    given, console = parser.parse_args(arguments), Console()
    workshop = Workshop({"mnist": given.mnist, "cifar10": given.cifar10}, given.out, given.fast, console.print)
    try:
        if (given.seconds is not None and not 0 < given.seconds < math.inf) or given.threads < 1:
            raise ConfigError("--seconds must be a positive number, --threads at least 1")
        chosen = {name: set_of(name) for name in given.only.split(",")}
        answers = {}
        for name, questions in chosen.items():
            folder = given.out / "vnncomp" / f"{name}{'_fast' if given.fast else ''}"
            contest, found = Contest(folder, given.seconds or questions.limit, given.threads), []
            wanted = None if given.networks is None else given.networks.split(",")
            for one in contest.run(x for x in questions.asked(workshop) if wanted is None or x.name in wanted):
                found.append(one)
                console.print(f"{one.network} {one.property}: {one.status} in {one.seconds:.1f} s {one.wrong}")
            if not found:
                raise ConfigError(f"the set {name} has none of the networks {given.networks}")
            answers[name] = found
    except CerttrainError as error:
        print(error, file=sys.stderr)
        return 2
    console.print(table(answers))
    return int(any(one.wrong for found in answers.values() for one in found))


def table(answers: dict[str, list[Answered]]) -> Table:
    """What was solved, set by set and network by network; networks of ACAS Xu's kind together."""
    groups: dict[str, list[Answered]] = {}
    for name, found in answers.items():
        networks = dict.fromkeys(one.network for one in found)
        for one in found:
            groups.setdefault(one.network if 1 < len(networks) <= 5 else name, []).append(one)
    lines = [_row(name, found) for name, found in groups.items()]
    right = ("questions", "limit s", "unsat", "sat", "solved", "open", "wrong", "median s")
    return make_table("solved, of questions of VNN-COMP's shapes", ("networks",), right, lines)


def _row(name: str, found: Sequence[Answered]) -> tuple[str, ...]:
    right = [one for one in found if not one.wrong]
    proved, violated = ([one for one in right if one.status == status] for status in ("unsat", "sat"))
    seconds = sorted(one.seconds for one in right if one.status in SOLVED)
    median = f"{seconds[len(seconds) // 2]:.1f}" if seconds else ""
    solved = len(proved) + len(violated)
    counts = (len(proved), len(violated), solved, len(found) - solved, sum(bool(one.wrong) for one in found))
    return name, str(len(found)), f"{found[0].limit:g}", *map(str, counts), median


if __name__ == "__main__":
    sys.exit(main())
