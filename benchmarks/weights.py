"""Weights trained through interval bounds, by the command that people type. Kept for the next time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.settings import Settings
from certtrain.errors import CerttrainError

RECIPE = (
    "experiment=mnist_ibp",
    "trainer.max_epochs=2",
    "schedule.eps.warmup=0.2",
    "schedule.eps.ramp=1.2",
    "certify.enabled=false",
)


def checkpoint(out: Path, network: str) -> Path:
    """Where a network's trained weights lie, or will."""
    return _directory(out, network) / "checkpoints" / "last.ckpt"


def train(settings: Settings, network: str, say: Callable[[str], None]) -> None:
    """Trains a network unless it was trained before.

    Raises:
        CerttrainError: If the command fails; its last line is quoted.
    """
    if checkpoint(settings.out, network).is_file():
        return
    say(f"training {network} for its weights: a minute or so, once")
    target = _directory(settings.out, network)
    # Renamed when complete: an interrupted training must not pass for a finished one.
    unfinished = target.with_name(f"{network}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [sys.executable, "-m", "certtrain", *RECIPE, f"model={network}", f"hydra.run.dir={_quoted(unfinished)}"]
    if settings.data is not None:
        command.append(f"data.path={_quoted(settings.data)}")
    threads = {} if settings.threads is None else {"OMP_NUM_THREADS": str(settings.threads)}
    done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise CerttrainError(f"training {network} failed: {said}")
    shutil.rmtree(target, ignore_errors=True)
    unfinished.replace(target)


def _directory(out: Path, network: str) -> Path:
    return out / "weights" / network


def _quoted(path: str | Path) -> str:
    """A path as Hydra's command line takes it, whatever characters it has."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
