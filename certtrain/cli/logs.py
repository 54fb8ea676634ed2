"""Who sees the numbers of a run, and what nobody has to see."""

from __future__ import annotations

import logging
import re
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.loggers import Logger, WandbLogger

from certtrain.cli.schema import Node, RunConfig
from certtrain.errors import ConfigError
from certtrain.files import naming
from certtrain.report.rows import title_of
from certtrain.training.metrics import JsonlLogger


@contextmanager
def run_loggers(config: RunConfig, node: Node, directory: Path) -> Iterator[list[Logger]]:
    """metrics.jsonl always, W&B on request; a W&B run is finished with this job, as failed if the job failed."""
    loggers: list[Logger] = [JsonlLogger(directory / "metrics.jsonl")]
    if config.logger.name == "local":
        yield loggers
        return
    import wandb

    # Written before anything is logged, so that whoever resumes this directory finds the same W&B run.
    run_id = _run_id(directory / "wandb_id.txt")
    group = config.logger.group or directory.parent.name
    view = WandbLogger(
        project=config.logger.project, save_dir=directory, id=run_id, group=group, config=node, name=title_of(node)
    )
    exit_code = 1
    try:
        yield [*loggers, view]
        exit_code = 0
    finally:
        wandb.finish(exit_code=exit_code)


def _run_id(file: Path) -> str:
    """The name of the W&B run that belongs to a directory, which a file there remembers.

    Raises:
        ConfigError: If the file holds something else.
    """
    if not file.is_file():
        with naming(file):
            file.write_text(uuid.uuid4().hex[:8] + "\n", encoding="utf-8")
    run_id = file.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch(r"[\w-]{1,64}", run_id, re.ASCII):
        raise ConfigError(f"{file} holds no id of a W&B run: without this file the run gets a new one")
    return run_id


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
