"""Who sees the numbers of a run, and what nobody has to see."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pytorch_lightning.loggers.logger import Logger

from certtrain.cli.configuration.schema import Node, RunConfig
from certtrain.training.metrics import JsonlLogger


@contextmanager
def run_loggers(config: RunConfig, node: Node, directory: Path, step: int = 0) -> Iterator[list[Logger]]:
    """metrics.jsonl always, and the views that were asked for; these are complete when the block ends.

    Args:
        config: Of the run.
        node: The same, as it is recorded.
        directory: Of the run.
        step: That it goes on from; 0 for one that begins.
    """
    options = config.logger
    loggers: list[Logger] = [JsonlLogger(directory / "metrics.jsonl")]
    with ExitStack() as stack:
        if options.csv is not None:
            from certtrain.tracking.files import csv_view

            loggers.append(_saved(stack, csv_view(directory, options.csv.folder, step)))
        if options.tensorboard is not None:
            from certtrain.tracking.files import tensorboard_view

            loggers.append(_saved(stack, tensorboard_view(directory, options.tensorboard.folder, step)))
        if options.wandb is not None:
            from certtrain.cli.job.views import wandb_view

            loggers.append(stack.enter_context(wandb_view(config, node, directory, step)))
        yield loggers


def _saved(stack: ExitStack, view: Logger) -> Logger:
    stack.callback(view.finalize, "success")
    stack.callback(view.save)
    return view


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hides notices that no user of certtrain can act on."""
    for name in ("pytorch_lightning", "lightning"):  # as conf/config.yaml has it, for ranks that Hydra does not start
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for notice in (
            r".*does not have many workers.*",
            r".*The number of training batches.*is smaller than the logging interval.*",
            r".*Checkpoint directory .* exists and is not empty.*",
            r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
            r".*GPU available but not used.*",
            r".*Total length of `.*` across ranks is zero.*",
            r".*your dataloader is not resumable.*",  # `Survival` moves the sampler
        ):
            warnings.filterwarnings("ignore", notice)
        yield
