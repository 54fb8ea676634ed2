"""The W&B run of a run directory: opened under its id, with one step axis, which is that of metrics.jsonl."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from certtrain.tracking.facts import Facts, configuration, name_of, sweep_of
from certtrain.tracking.packages import mode

if TYPE_CHECKING:
    import wandb

STEP = "step"
Kind = Literal["checkpoint", "ledger", "record"]
KINDS: tuple[Kind, ...] = ("checkpoint", "ledger", "record")


@dataclass(frozen=True)
class Target:
    """Where a run goes in W&B, and what of it; see conf/logger/wandb.yaml.

    Attributes:
        project: Its project.
        entity: Whose project; None for the account's own.
        group: Of runs; None for the sweep's name.
        artifacts: Kinds of files that are uploaded at the end.
        images: So many images that were not verified are shown.
    """

    project: str
    entity: str | None = None
    group: str | None = None
    artifacts: tuple[str, ...] = KINDS
    images: int = 32


@contextmanager
def opened(
    target: Target,
    run_id: str,
    directory: Path,
    node: Mapping[str, Any],
    facts: Facts,
    record: Mapping[str, Any],
    folder: Path,
    exit_code: int = 0,
    offline: bool = False,
    **settings: Any,
) -> Iterator[wandb.Run]:
    """The W&B run; finished with the block, as failed if the block failed.

    Args:
        target: Where it goes.
        run_id: Its id; one that exists goes on.
        directory: Of the run.
        node: Its configuration.
        facts: What it is.
        record: Its summary.json; empty before it is written.
        folder: Where W&B keeps its own files; exists.
        exit_code: Of what is shown; another one than 0 shows it as failed.
        offline: Whether nothing is sent whatever the environment says.
        settings: Of W&B, other than the usual ones.
    """
    import wandb

    run = wandb.init(
        project=target.project,
        entity=target.entity,
        id=run_id,
        resume="allow",
        name=name_of(facts, record),
        group=target.group or sweep_of(directory),
        job_type="train",
        tags=facts.tags,
        dir=str(folder),
        mode="offline" if offline else mode(),
        reinit="finish_previous",
        settings=wandb.Settings(**settings),
    )
    run.config.update(configuration(node, facts, record), allow_val_change=True)
    run.define_metric(STEP, hidden=True)
    run.define_metric("*", step_metric=STEP)
    code = 1
    try:
        yield run
        code = exit_code
    finally:
        run.finish(exit_code=code)


def log_row(run: wandb.Run, step: int, row: Mapping[str, Any]) -> None:
    """Adds to what is known of a step.

    W&B's own counter is the same step. A run that goes on is told by the server how far it is, and ignores what comes
    before: rows that a resumed run or a second `sync` repeats are there once.
    """
    run.log({**row, STEP: step}, step=step)


class WandbView(Logger):
    """What Lightning logs, for W&B.

    Args:
        run: Open.
        directory: Of the run.
        target: Where it goes.
    """

    def __init__(self, run: wandb.Run, directory: Path, target: Target) -> None:
        super().__init__()
        self.run = run
        self.directory = directory
        self.target = target

    @property
    def name(self) -> str:
        """The project."""
        return self.target.project

    @property
    def version(self) -> str:
        """The id of the run."""
        return str(self.run.id)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration was sent when the run was opened."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Sends one row."""
        row = {key: float(value) for key, value in metrics.items()}
        log_row(self.run, int(step or 0), row)
