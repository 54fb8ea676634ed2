"""A job of a sweep, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from certtrain.files import replacing

# In the directory of a job: everything that it printed, why it failed, its result.
OUTPUT, TRACEBACK, SUMMARY, REPORT = "output.log", "traceback.txt", "summary.json", "report.html"
METRICS = "metrics.jsonl"
# There, too: why a search wants it to end before its end. A process that looks after the job ends it then.
PRUNED = "pruned.txt"

Status = Literal["waiting", "running", "done", "done before", "failed", "stopped", "pruned", "not run"]


@dataclass(frozen=True)
class Job:
    """One command line of a sweep.

    Attributes:
        number: Its place in the sweep, from 0.
        overrides: What makes it this job.
        directory: Its run directory, absolute.
        command: What runs it, and nothing else, in any shell.
        folder: Where the command is run.
        processes: How many processes it starts on a machine: its ranks there.
        gpus: How many GPUs it uses where there are any.
        stop_code: The exit code by which it says that a signal has stopped it and it can go on.
        epochs: How long it trains; None if that is not known.
        steps: The same in steps; the shorter counts, and less than 1 is no limit.
    """

    number: int
    overrides: tuple[str, ...]
    directory: Path
    command: tuple[str, ...]
    folder: Path
    processes: int = 1
    gpus: int = 0
    stop_code: int = 75
    epochs: int | None = None
    steps: int | None = None

    @property
    def is_finished(self) -> bool:
        """Whether its result and its report, the last thing that a run writes, are there, and nothing failed."""
        return (self.directory / REPORT).is_file() and _is_complete(_summary(self.directory))

    @property
    def is_pruned(self) -> bool:
        """Whether a search does not want it any more."""
        return (self.directory / PRUNED).is_file()

    def prune(self, reason: str) -> None:
        """Asks for its end, wherever it runs.

        Args:
            reason: In words.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with replacing(self.directory / PRUNED) as partial:
            partial.write_text(f"{reason}\n", encoding="utf-8")


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        status: `stopped` jobs go on when the same sweep is run again; `failed` ones are tried again; `pruned` ones were
            behind others of a search.
        exit_code: Of its process; minus the signal that ended it; None if it did not run.
        seconds: Wall-clock time; None if it did not run.
    """

    status: Status
    exit_code: int | None = None
    seconds: float | None = None


def certified_accuracy(directory: Path) -> float | None:
    """What summary.json of a run says, a fraction of 1; None without one, or if nothing was certified."""
    found = (_summary(directory) or {}).get("certified_accuracy")
    return float(found) if isinstance(found, (int, float)) else None


def _is_complete(summary: Mapping[str, Any] | None) -> bool:
    """Whether a run that wrote this ended well: as `certtrain.report.check_failures` has it."""
    failures = [] if summary is None else summary.get("failures") or []
    return summary is not None and all(failure["kind"] == "timeout" for failure in failures)


def _summary(directory: Path) -> dict[str, Any] | None:
    """What stands in summary.json; None without one, or if it cannot be read."""
    try:
        found = json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
