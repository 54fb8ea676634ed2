"""`python -m certtrain sync`: W&B runs made of what stands in run directories."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from certtrain.cli.configuration.parser import Parser
from certtrain.errors import CerttrainError, ConfigError

DESCRIPTION = (
    "Makes W&B runs of the record of finished and interrupted runs (config.yaml, metrics.jsonl, ledger.jsonl, "
    "summary.json, pictures), whether or not they logged to W&B. What is there already is not sent again: a run keeps "
    "its id (wandb_id.txt), and wandb_sync.json beside it says what was sent. With --offline, or WANDB_MODE=offline, "
    "each run becomes a folder that `wandb sync` takes."
)


def sync_command(arguments: list[str]) -> None:
    """Sends the runs below directories.

    Args:
        arguments: What follows `sync` on the command line.

    Raises:
        CerttrainError: If W&B cannot be reached, or a run could not be sent; the others were.
    """
    parser = Parser(prog="python -m certtrain sync", description=DESCRIPTION)
    add = parser.add_argument
    add("directory", type=Path, nargs="+", help="run directories, sweeps, or folders of them")
    add("--project", help="where they go; default: what the run was told, WANDB_PROJECT, or certtrain")
    add("--entity", help="whose project; default: what the run was told, WANDB_ENTITY, or the account's own")
    add("--group", help="of all these runs; default: the sweep that a run is a job of")
    add("--offline", action="store_true", help="send nothing: write folders for `wandb sync`")
    add("--anew", action="store_true", help="give the runs new ids, as W&B wants it after theirs were deleted there")
    asked = parser.parse_args(arguments)
    for directory in asked.directory:
        if not directory.is_dir():
            raise ConfigError(f"sync: {directory} is no directory")
    _sync_all(asked)


def _sync_all(asked: Namespace) -> None:
    from certtrain.report.collect_read import find_runs
    from certtrain.tracking.packages import check_login, mode, offline, require

    require("wandb", "sync")
    if mode() == "disabled":
        raise ConfigError("sync: WANDB_MODE=disabled sends nothing and writes nothing; --offline writes folders")
    stays = asked.offline or offline()
    if not stays:
        check_login("sync")
    os.environ.setdefault("WANDB_SILENT", "true")  # what it says of each run is said here in one line
    console, found = Console(), find_runs(asked.directory)
    directories = [*(run.directory for run in found.runs), *found.unfinished]
    if not directories and not found.damaged:
        raise ConfigError(f"sync: there is no run in {', '.join(map(str, asked.directory))}")
    refused = list(found.damaged)
    for directory in directories:
        try:
            line = _sync_one(directory, asked, stays)
        except CerttrainError as error:
            refused.append(str(error))
            continue
        console.print(f"{directory}: {line}", markup=False, highlight=False, soft_wrap=True)
    for line in refused:
        console.print(f"not sent: {line}", markup=False, highlight=False, soft_wrap=True, style="red")
    if refused:
        total = len(found.damaged) + len(directories)
        raise CerttrainError(f"sync: {len(refused)} of {total} runs were not sent, see above")


def _sync_one(directory: Path, asked: Namespace, stays: bool) -> str:
    """Sends one run, and says in a line what became of it."""
    from certtrain.cli.job.views import recorded_images, target_of
    from certtrain.cli.rundir.directory import RunDirectory, parse_recorded
    from certtrain.tracking.identity import forget
    from certtrain.tracking.sync import sync

    run = RunDirectory(directory)
    if (process := run.holder) is not None:
        return f"left out, it is at work ({process})"
    node = run.configuration()
    if node is None:
        raise ConfigError(f"{directory / 'config.yaml'} is no configuration of a run")
    config = parse_recorded(node, directory)
    told = target_of(config)
    target = replace(
        told,
        project=asked.project or _project(config.logger.wandb is not None, told.project),
        entity=asked.entity or told.entity or os.environ.get("WANDB_ENTITY"),
        group=asked.group or told.group,
    )
    if asked.anew:
        forget(directory)
    done = sync(directory, node, target, stays, recorded_images(config))
    if done.rows is None:
        return f"{done.id} is up to date" + (f", {done.place}" if done.place else "")
    return f"{done.id}, {done.rows:,} steps, " + (f"next: wandb sync {done.place}" if stays else done.place)


def _project(told: bool, name: str) -> str:
    """The project that a run was told, or else what the environment says."""
    return name if told else os.environ.get("WANDB_PROJECT") or name
