"""Where a result comes from: the command, the code, the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from certtrain.files import replacing

PACKAGES = ("certtrain", "torch", "pytorch_lightning", "numpy", "scipy", "auto_LiRPA")
# In a run directory: what began the run, and what went on with it.
FILE = "origin.json"
# Words that a sweep adds to the command of each of its jobs; and a directory in quotes that it does not need.
OF_A_JOB = ("hydra.mode=", "hydra.job.num=")
_QUOTED = re.compile(r"^(hydra\.run\.dir=)'([\w./-]+)'$")
# Git answers at once, or not at all: a repository on a file system that hangs is no reason to wait.
GIT_SECONDS = 10.0


def versions() -> dict[str, str | None]:
    """Versions of what a result depends on; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def record_start(directory: Path, arguments: Sequence[str], overrides: Sequence[str], **told: Any) -> None:
    """Notes that a command begins a run, or goes on with one, in the run directory.

    The first command keeps its place, since it says what the run is; later ones stand under `continued`. The keys are
    those of the last one, which may give a run more epochs.

    Args:
        directory: The run directory; exists.
        arguments: Of the command line.
        overrides: The keys that it sets, as typed, with those that it takes over from the run.
        **told: What else is to be told of where the run comes from.
    """
    start: dict[str, Any] = {
        "command": command_line(arguments),
        "commit": commit(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    first = read_origin(directory)
    if first:
        start = {**first, "continued": [*first.get("continued", ()), start]}
    with replacing(directory / FILE) as partial:
        partial.write_text(
            json.dumps({**start, "overrides": list(overrides), **told}, indent=2) + "\n", encoding="utf-8"
        )


def read_origin(directory: Path) -> dict[str, Any]:
    """What `record_start` has noted; nothing where nobody did or the file is damaged, since no result depends on it."""
    try:
        found = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("command"), str) else {}


def command_line(arguments: Sequence[str]) -> str:
    """What is typed in a shell to run certtrain with these arguments; without what a sweep tells its jobs alone."""
    typed = [argument for argument in arguments if not argument.startswith(OF_A_JOB)]
    return shlex.join(["python", "-m", "certtrain", *(_QUOTED.sub(r"\1\2", argument) for argument in typed)])


def commit(folder: Path | None = None) -> str | None:
    """The commit of the code that runs, with "-dirty" behind it where tracked files were changed since.

    Args:
        folder: The folder that holds the package. The default is this package's own.

    Returns:
        None where the folder is no git checkout of its own, as for an installed package, or git is not there.
    """
    home = Path(__file__).resolve().parents[2] if folder is None else folder
    # Not a checkout around it: site-packages may lie in someone else's.
    if not (home / ".git").exists():
        return None
    describe = ("git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        done = subprocess.run(describe, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def hardware() -> dict[str, Any]:
    """The machine as this process uses it.

    Returns:
        cpu: Its name.
        cores: How many this process may use.
        threads: How many torch computes with.
        gpus: Names of those that torch sees, none for none.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"cpu": _cpu(), "cores": cores, "threads": torch.get_num_threads(), "gpus": gpus}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name")
    return next(names, None) or platform.processor() or platform.machine()
