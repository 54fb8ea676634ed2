"""W&B as a configuration asks for it: the run of a directory, what is handed to it, and the images that it shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from torch import Tensor

from certtrain.cli.assembly.data import make_source
from certtrain.cli.configuration.schema import Node, RunConfig
from certtrain.cli.configuration.schema.views import Wandb
from certtrain.data.batches import as_float
from certtrain.data.source import Splits
from certtrain.errors import CerttrainError
from certtrain.report.metrics import read_rows
from certtrain.tracking.facts import facts_of
from certtrain.tracking.identity import Sent, begin_identity, digest_of
from certtrain.tracking.packages import mode, offline
from certtrain.tracking.results import Images, send_results
from certtrain.tracking.sync import address_of, sync
from certtrain.tracking.wandb_run import Target, WandbView, log_row, opened


@contextmanager
def wandb_view(config: RunConfig, node: Node, directory: Path, step: int) -> Iterator[WandbView]:
    """The W&B run of a directory; it is finished with this block, as failed if the block fails.

    Rows of the record that W&B has not got come first: an offline run cannot go on where another one has ended, and the
    run may have had no W&B so far.

    Args:
        config: Of the run.
        node: The same, as it is recorded.
        directory: Of the run.
        step: That it goes on from.
    """
    target = target_of(config)
    # Noted before anything is logged, so that whoever resumes this directory finds the same W&B run.
    run_id = begin_identity(directory)
    with opened(target, run_id, directory, node, facts_of(node), {}, directory) as run:
        for known, row in read_rows(directory / "metrics.jsonl"):
            if int(run.starting_step or 0) <= known < step:
                log_row(run, known, row)
        yield WandbView(run, directory, target)
    if not offline():
        Sent(run_id, address_of(target), digest_of(directory)).write(directory)


def target_of(config: RunConfig) -> Target:
    """Where a run goes in W&B; without logger=wandb, where it would go."""
    options = config.logger.wandb or Wandb()
    return Target(options.project, options.entity, options.group, options.artifacts, options.images)


def send(loggers: Sequence[Logger], node: Node, record: Mapping[str, Any], splits: Splits | None) -> None:
    """Hands W&B what stands in the run directory when the run is over.

    Args:
        loggers: Of the run; others have all that they show.
        node: Its configuration.
        record: Its summary.json.
        splits: Its data; None where nothing was read.
    """
    for logger in loggers:
        if isinstance(logger, WandbView) and not logger.run.disabled:
            facts = facts_of(node)
            images = no_images if splits is None else images_of(splits)
            send_results(logger.run, logger.directory, logger.target, facts, record, images)


def bring_up_to_date(config: RunConfig, node: Node, directory: Path) -> None:
    """Sends what was added to the directory of a run that logs to W&B."""
    if config.logger.wandb is not None and mode() != "disabled":
        sync(directory, node, target_of(config), offline(), recorded_images(config))


def no_images(indices: Sequence[int]) -> Mapping[int, Tensor]:
    """None at all."""
    return {}


def images_of(splits: Splits) -> Images:
    """The test images of data that were read."""

    def found(indices: Sequence[int]) -> Mapping[int, Tensor]:
        inputs = splits.test.inputs
        return {index: as_float(inputs[index]) for index in indices if index < len(inputs)}

    return found


def recorded_images(config: RunConfig) -> Images:
    """The test images of a recorded run, read when they are asked for; none where the data are not at hand."""

    def found(indices: Sequence[int]) -> Mapping[int, Tensor]:
        try:
            return images_of(make_source(config).load())(indices)
        except CerttrainError:
            return {}

    return found
