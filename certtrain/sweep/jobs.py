"""A job of a sweep, and what became of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# In the directory of a job: everything that it printed, why it failed, its result.
OUTPUT, TRACEBACK, SUMMARY, REPORT = "output.log", "traceback.txt", "summary.json", "report.html"

Status = Literal["waiting", "running", "done", "done before", "failed", "stopped", "not run"]


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
        stop_code: The exit code by which it says that a signal has stopped it and it can go on.
    """

    number: int
    overrides: tuple[str, ...]
    directory: Path
    command: tuple[str, ...]
    folder: Path
    processes: int = 1
    stop_code: int = 75

    @property
    def is_finished(self) -> bool:
        """Whether its result and its report, the last thing that a run writes, are there."""
        return (self.directory / SUMMARY).is_file() and (self.directory / REPORT).is_file()


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        status: `stopped` jobs go on when the same sweep is run again; `failed` ones are tried again.
        exit_code: Of its process; minus the signal that ended it; None if it did not run.
        seconds: Wall-clock time; None if it did not run.
    """

    status: Status
    exit_code: int | None = None
    seconds: float | None = None


def certified_accuracy(directory: Path) -> float | None:
    """What summary.json of a run says, a fraction of 1; None without one, or if nothing was certified."""
    try:
        found = json.loads((directory / SUMMARY).read_text(encoding="utf-8")).get("certified_accuracy")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return float(found) if isinstance(found, (int, float)) else None
