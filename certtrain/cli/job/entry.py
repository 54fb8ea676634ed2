"""Where a run is entered, by the process that was asked for it and by each of its ranks, and left again."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from certtrain.cli.assembly import handover
from certtrain.cli.configuration.explain import as_typed
from certtrain.cli.configuration.schema import Node, RunConfig, parse, plain
from certtrain.cli.job import cluster
from certtrain.cli.job.job import Job
from certtrain.cli.job.logs import quiet_libraries, run_loggers
from certtrain.cli.job.pruning import ending_pruned
from certtrain.cli.job.supervisor import run_ranks
from certtrain.cli.rundir.directory import RunDirectory, changes
from certtrain.cli.rundir.moving import moves
from certtrain.lock import locked
from certtrain.report import check_failures
from certtrain.report.origin import record_start
from certtrain.sweep.jobs import certified_accuracy
from certtrain.training.stopping import Stopped, StopRequest, signal_numbers
from certtrain.training.survival import newest, reached_step

Record = dict[str, Any]

# How a fork says what it is a fork of.
FORKING = ("fork", "warm_start.path")
# Number of the standard error.
STDERR = 2


def run(composed: DictConfig) -> float | None:
    """Runs one job in the directory that Hydra made for it: here, with other ranks that wait, or on ranks of its own.

    Returns:
        The certified accuracy on the test images, for sweepers that optimise; None if nothing was certified.

    Raises:
        CerttrainError: If the run cannot go on; what it wrote so far stays.
    """
    node = plain(composed)
    config = parse(node)
    directory = Path(HydraConfig.get().runtime.output_dir).absolute()
    with locked(directory):
        place = RunDirectory(directory)
        if (there := place.configuration()) is not None and moves(changes(there, node))[1]:
            place.set_results_aside()  # it goes on to more
        place.write_configuration(node)
        record_start(directory, sys.argv[1:], **_told(config, node))
        cluster.tell(cluster.Orders(node, directory))
        if config.trainer.ranks > 1 and not dist.is_initialized():
            handover.forget()  # the ranks are other processes
            run_ranks(directory, config.trainer.ranks, signal_numbers(config.preemption.signals))
            return certified_accuracy(directory)
        return run_in(directory, node).get("certified_accuracy")


def run_in(directory: Path, node: Record) -> Record:
    """Runs a resolved configuration in this process: the whole run, or what one of its ranks has to do.

    Args:
        directory: The run directory; exists.
        node: The configuration.

    Returns:
        What stands in summary.json; nothing on ranks other than the first, and where its search had no use for it.

    Raises:
        CertificationFailed: If something failed on images that it was to judge; everything is written by then.
        KeyboardInterrupt: If Ctrl-C has stopped it.
        SystemExit: If another signal has; it goes on later.
    """
    config = parse(node)
    first = not dist.is_initialized() or dist.get_rank() == 0
    console = Console() if first else Console(quiet=True)
    request = StopRequest(signal_numbers(config.preemption.signals), _tell if first else lambda line: None)
    record: Record = {}
    with request.listening(), quiet_libraries():
        try:
            with ExitStack() as stack:
                start = newest(directory / "checkpoints")
                step = 0 if start is None else reached_step(start)
                loggers = stack.enter_context(run_loggers(config, node, directory, step)) if first else []
                stack.push(ending_pruned(directory, console, loggers))
                job = Job(config, directory, console, request, start)
                record = job.run(loggers)
                if config.logger.wandb is not None:
                    from certtrain.cli.job.views import send  # the others do without its imports

                    send(loggers, node, record, job.splits)
                check_failures(record)
        except Stopped as stop:
            again = as_typed("resume", str(directory))
            console.print(
                f"{stop}: the same command, or {again}, goes on", markup=False, highlight=False, soft_wrap=True
            )
            if stop.signal is signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(config.preemption.exit_code) from None
    return record


def _told(config: RunConfig, node: Node) -> Record:
    """The keys that the command sets, as they were typed, where choices of the user's own come from, and its parent."""
    hydra = HydraConfig.get()
    typed = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(typed, list)
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    found: Record = {"overrides": [word for word in map(str, typed) if not word.startswith("resume=")]}
    if folders:
        found["config_dir"] = folders[0]
    if config.fork is None:
        return found
    checkpoint = Path(str(config.warm_start.path))
    parent = RunDirectory(checkpoint.parent.parent)
    changed = [str(change) for change in changes(parent.configuration() or {}, node) if change.key not in FORKING]
    told = {"run": str(parent.path), "checkpoint": checkpoint.name, "step": reached_step(checkpoint)}
    return found | {"forked_from": {**told, "changed": changed}}


def _tell(line: str) -> None:
    """To the terminal past all buffers, which may be in use where a signal arrives."""
    with suppress(OSError):  # a terminal that is gone
        os.write(STDERR, f"certtrain: {line}\n".encode())
