"""Run directories as processes leave them, without a process."""

from pathlib import Path

import torch

from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import Node, plain
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.cli.rundir.resume import Place, find_place

SMALL = ("method=grad", "relaxation=ibp", "optimizer.lr=1e-5")


def place(*overrides: str) -> Place:
    """Where a command goes."""
    (job,) = compose_jobs(Command((*SMALL, *overrides), False, False))
    return find_place(job, plain(job))


def node(*overrides: str) -> Node:
    """Its configuration."""
    (job,) = compose_jobs(Command((*SMALL, *overrides), False, False))
    return plain(job)


def begun(path: Path, *overrides: str, step: int | None = 7, finished: bool = False) -> Path:
    """A run directory as a process leaves it."""
    (path / "checkpoints").mkdir(parents=True)
    (path / ".hydra").mkdir()
    RunDirectory(path).write_configuration(node(*overrides))
    if step is not None:
        torch.save({"global_step": step}, path / "checkpoints" / "last.ckpt")
    for name in ("summary.json", "report.html") if finished else ():
        (path / name).write_text("")
    return path
