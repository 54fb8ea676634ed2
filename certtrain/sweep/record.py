"""sweep.json: the jobs of a sweep and what became of them, for people, scripts and the same sweep run again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from certtrain.errors import ConfigError
from certtrain.files import replacing
from certtrain.sweep.jobs import Job, Outcome, certified_accuracy

NAME = "sweep.json"


def write(directory: Path, jobs: Sequence[Job], outcomes: Mapping[int, Outcome]) -> None:
    """Replaces the record at once.

    Args:
        directory: Of the sweep; exists.
        jobs: In their order.
        outcomes: Number of a job -> what became of it.
    """
    text = json.dumps({"jobs": rows(directory, jobs, outcomes)}, indent=2)
    with replacing(directory / NAME) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def rows(directory: Path, jobs: Sequence[Job], outcomes: Mapping[int, Outcome]) -> list[dict[str, Any]]:
    """One object per job; directories are relative to the sweep's."""
    return [
        {
            "job": job.number,
            "overrides": list(job.overrides),
            "status": outcomes[job.number].status,
            "exit_code": outcomes[job.number].exit_code,
            "certified_accuracy": certified_accuracy(job.directory),
            "seconds": outcomes[job.number].seconds,
            "directory": _relative(job.directory, directory),
        }
        for job in jobs
    ]


def read(directory: Path) -> list[dict[str, Any]]:
    """The objects of a record; none if there is no record.

    Raises:
        ConfigError: If there is a file of this name that is none.
    """
    path = directory / NAME
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["jobs"]
        return [{**row, "job": int(row["job"]), "overrides": [str(o) for o in row["overrides"]]} for row in found]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ConfigError(f"{path} is no record of a sweep: choose another hydra.sweep.dir") from error


def check_continues(directory: Path, sweep: Sequence[Sequence[str]]) -> None:
    """Refuses a directory that holds anything but an earlier run of the same sweep.

    Args:
        directory: hydra.sweep.dir.
        sweep: Overrides of every job. A sweep may have grown: jobs after the recorded ones are new.

    Raises:
        ConfigError: One line about what is in the way.
    """
    if not directory.exists():
        return
    if not directory.is_dir() or (any(directory.iterdir()) and not read(directory)):
        raise ConfigError(f"{directory} exists and holds no sweep: choose another hydra.sweep.dir")
    for row in read(directory):
        number = row["job"]
        if number >= len(sweep) or row["overrides"] != list(sweep[number]):
            raise ConfigError(
                f"{directory} holds another sweep (its job {number} is {' '.join(row['overrides']) or 'the default'}): "
                "choose another hydra.sweep.dir"
            )


def _relative(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)
