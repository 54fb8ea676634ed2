"""How far the run of a directory is, and why it is no further."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from certtrain.cli.rundir.directory import RunDirectory
from certtrain.errors import CerttrainError
from certtrain.report import check_failures, read_summary
from certtrain.report.collect_read import SUMMARY
from certtrain.sweep.jobs import PRUNED, TRACEBACK

Name = Literal["finished", "failed", "pruned", "interrupted", "running", "damaged"]


@dataclass(frozen=True)
class State:
    """What became of a run.

    Attributes:
        name: `finished`: everything is written. `failed`: an error ended it, or what was to judge its images failed on
            some. `interrupted`: it has begun and neither finished nor failed; the same command goes on. `running`: a
            process is at work there. `pruned`: its search has ended it, since it was behind. `damaged`: its record
            cannot be read.
        reason: One line, where it is neither finished nor running; "" where nothing is known.
    """

    name: Name
    reason: str = ""


def state_of(directory: Path) -> State:
    """The state of a run directory; nothing is raised for what cannot be read."""
    run = RunDirectory(directory)
    if run.holder is not None:
        return State("running")
    if run.finished:
        return _finished(directory)
    if (directory / PRUNED).is_file():
        return State("pruned", _line(directory / PRUNED))
    if _failed_last(directory):
        return State("failed", failure(directory / TRACEBACK))
    if run.configuration() is None:
        return State("damaged", "config.yaml is missing or cannot be read")
    return State("interrupted")


def failure(path: Path) -> str:
    """The line of a traceback.txt that says why; "" where there is none."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    if not lines:
        return ""
    # A process that could not write its traceback is described in the first line: see `certtrain.sweep.process`.
    line = lines[0].rpartition("; the last lines")[0] or lines[-1]
    kind, separator, text = line.partition(": ")
    return text if separator and kind.startswith("certtrain.") else line


def _line(path: Path) -> str:
    """The text of a small file on one line; "" where it cannot be read."""
    try:
        return " ".join(path.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ""


def _finished(directory: Path) -> State:
    try:
        check_failures(read_summary(directory / SUMMARY))
    except CerttrainError as error:
        return State("failed", str(error))
    except (LookupError, TypeError, AttributeError) as error:
        return State("damaged", f"{SUMMARY} is no summary of a run ({type(error).__name__}: {error})")
    return State("finished")


def _failed_last(directory: Path) -> bool:
    """Whether a failure is the last thing that happened: a run that went on since has written other files later."""
    try:
        failed = (directory / TRACEBACK).stat().st_mtime_ns
    except OSError:
        return False
    later = (directory / "metrics.jsonl", directory / "ledger.jsonl", directory / "checkpoints" / "last.ckpt")
    return all(path.stat().st_mtime_ns <= failed for path in later if path.is_file())
