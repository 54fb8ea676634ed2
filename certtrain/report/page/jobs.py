"""What is missing: runs without a result, and why, as far as their directories and sweep.json say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certtrain.report.page.material import LEDGER, METRICS, read_material

SWEEP, TRACEBACK = "sweep.json", "traceback.txt"
DONE = ("done", "done before")


@dataclass(frozen=True)
class Missing:
    """A run that has no result.

    Attributes:
        where: Its directory.
        state: failed, interrupted, stopped, not run, ...
        why: One line.
        overrides: What makes it this run, where a sweep says so.
    """

    where: str
    state: str
    why: str
    overrides: str


def missing_runs(directories: Sequence[Path], unfinished: Sequence[Path]) -> list[Missing]:
    """Unfinished run directories, and jobs of sweeps that did not come to a good end.

    Args:
        directories: Where sweeps are looked for.
        unfinished: Run directories without a result.
    """
    jobs = {_real(directory): row for directory, row in _jobs(directories)}
    found = [_unfinished(path, jobs.pop(_real(path), {})) for path in unfinished]
    rest = ((path, row) for path, row in jobs.items() if row.get("status") not in DONE)
    return [*found, *(_job(Path(path), row) for path, row in rest)]


def _unfinished(path: Path, row: dict[str, Any]) -> Missing:
    state, why = _state(path)
    return Missing(str(path), "failed" if row.get("status") == "failed" else state, why, _words(row))


def _job(path: Path, row: dict[str, Any]) -> Missing:
    """A job whose directory was not begun, or which ended badly though it has a result."""
    if (path / TRACEBACK).is_file():
        return Missing(str(path), str(row.get("status")), _last_line(path / TRACEBACK), _words(row))
    code = row.get("exit_code")
    why = "the sweep did not get to it" if code is None else f"exit code {code}"
    return Missing(str(path), str(row.get("status", "not run")), why, _words(row))


def _state(path: Path) -> tuple[str, str]:
    if (path / TRACEBACK).is_file():
        return "failed", _last_line(path / TRACEBACK)
    if (path / LEDGER).is_file():
        return "interrupted", "while it certified, or it is at work"
    steps = read_material(path).steps if (path / METRICS).is_file() else None
    if steps:
        return "interrupted", f"after {steps:,} steps of training, or it is at work"
    return "interrupted", "before the first step was logged, or it is at work"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    return lines[-1].strip()[:400] if lines else f"{path.name} is empty"


def _words(row: dict[str, Any]) -> str:
    found = row.get("overrides")
    return " ".join(map(str, found)) if isinstance(found, list) else ""


def _jobs(directories: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Directory and row of every job of every sweep at, above or below some directories."""
    for file in records(directories, SWEEP):
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))["jobs"]
            yield from ((file.parent / str(row["directory"]), dict(row)) for row in rows)
        except (OSError, ValueError, TypeError, LookupError):
            continue  # no record of ours


def records(directories: Sequence[Path], name: str) -> list[Path]:
    """Files of a name at or below some directories, each once; none is looked for inside of a run."""
    return sorted({file for directory in directories for file in _below(directory, name)})


def _below(directory: Path, name: str) -> Iterator[Path]:
    for place, folders, files in os.walk(directory):
        if name in files:
            yield Path(place) / name
        if "summary.json" in files or "config.yaml" in files:
            folders.clear()


def _real(path: Path) -> str:
    return os.path.realpath(path)
