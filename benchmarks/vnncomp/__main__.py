"""`python -m benchmarks.vnncomp`: asks sets of questions, prints a line for each and a table of what was solved."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.tables import make_table
from benchmarks.vnncomp.contest import STATUSES, Answered, Contest
from benchmarks.vnncomp.sets import SETS, Asked, set_of
from benchmarks.vnncomp.workshop import OUT, Workshop
from certtrain.errors import CerttrainError, ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains and writes what is missing, asks what has no answer, and shows all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vnncomp", description=__doc__)
    parser.add_argument("--only", default=",".join(SETS), metavar="SETS", help="default: %(default)s")
    parser.add_argument("--networks", metavar="NAMES", help="of the sets, these networks alone; default: all")
    parser.add_argument("--seconds", type=float, metavar="S", help="for each question; default: the competition's")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each process; default: %(default)s")
    parser.add_argument("--again", metavar="STATUSES", help="ask once more what was answered so, e.g. timeout,unknown")
    parser.add_argument("--mnist", metavar="PATH", help="folder with MNIST; default: from the hub")
    parser.add_argument("--cifar10", metavar="PATH", help="folder with CIFAR-10; default: from the hub")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--fast", action="store_true", help="networks after one epoch, kept apart: shows that it works")
    given, console = parser.parse_args(arguments), Console()
    workshop = Workshop({"mnist": given.mnist, "cifar10": given.cifar10}, given.out, given.fast, console.print)
    try:
        answers = _answers(given, workshop)
    except CerttrainError as error:
        print(error, file=sys.stderr)
        return 2
    console.print(table(answers))
    return int(any(one.wrong for found in answers.values() for one in found))


def _answers(given: argparse.Namespace, workshop: Workshop) -> dict[str, list[Answered]]:
    """Set -> its answers."""
    if (given.seconds is not None and not 0 < given.seconds < math.inf) or given.threads < 1:
        raise ConfigError("--seconds must be a positive number, --threads at least 1")
    again = frozenset(given.again.split(",") if given.again else ())
    if unknown := sorted(again - set(STATUSES)):
        raise ConfigError(f"--again: '{unknown[0]}' is none of {', '.join(STATUSES)}")
    asked = {name: list(set_of(name).asked(workshop)) for name in given.only.split(",")}
    if given.networks is not None:
        asked = _only(given.networks.split(","), asked)
    answers: dict[str, list[Answered]] = {}
    for name, networks in asked.items():
        folder = given.out / "vnncomp" / f"{name}{'_fast' if given.fast else ''}"
        contest = Contest(folder, given.seconds or set_of(name).limit, given.threads, again)
        for one in contest.run(networks):
            answers.setdefault(name, []).append(one)
            workshop.say(f"{one.network} {one.property}: {one.status} in {one.seconds:.1f} s {one.wrong}")
    return answers


def _only(names: Sequence[str], asked: Mapping[str, Sequence[Asked]]) -> dict[str, list[Asked]]:
    """Of the sets, the networks of these names."""
    known = {one.name for networks in asked.values() for one in networks}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--networks: no network '{unknown[0]}' in {', '.join(asked)}")
    chosen = {name: [one for one in networks if one.name in names] for name, networks in asked.items()}
    return {name: networks for name, networks in chosen.items() if networks}


def table(answers: dict[str, list[Answered]]) -> Table:
    """What was solved, set by set and network by network; networks of ACAS Xu's kind together."""
    groups: dict[str, list[Answered]] = {}
    for name, found in answers.items():
        networks = dict.fromkeys(one.network for one in found)
        for one in found:
            groups.setdefault(one.network if len(networks) <= 5 else name, []).append(one)
    lines = [_row(name, found) for name, found in groups.items()]
    right = ("questions", "limit s", "unsat", "sat", "solved", "open", "wrong", "median s")
    return make_table("solved, of questions of VNN-COMP's shapes", ("networks",), right, lines)


def _row(name: str, found: Sequence[Answered]) -> tuple[str, ...]:
    solved = [one for one in found if one.solved]
    proved, violated = (sum(one.status == status for one in solved) for status in ("unsat", "sat"))
    seconds = sorted(one.seconds for one in solved)
    median = f"{seconds[len(seconds) // 2]:.1f}" if seconds else ""
    counts = (proved, violated, len(solved), len(found) - len(solved), sum(bool(one.wrong) for one in found))
    return name, str(len(found)), f"{found[0].limit:g}", *map(str, counts), median


if __name__ == "__main__":
    sys.exit(main())
