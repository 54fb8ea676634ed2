"""The end of a run that its search has no use for any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from pytorch_lightning.loggers.logger import Logger
from rich.console import Console

from certtrain.sweep.jobs import PRUNED
from certtrain.tracking.wandb_run import WandbView
from certtrain.training.stopping import Stopped


def ending_pruned(directory: Path, console: Console, loggers: Sequence[Logger]) -> Callable[..., bool]:
    """What a stack calls last: a run that a search has stopped ends well there, as far as loggers are concerned.

    Args:
        directory: The run directory.
        console: Where people read.
        loggers: Of the run; W&B is told why it ended.

    Returns:
        An `__exit__` that takes `Stopped` for a good end where the search has left its reason.
    """

    def end(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if not isinstance(error, Stopped) or not (directory / PRUNED).is_file():
            return False
        why = (directory / PRUNED).read_text(encoding="utf-8").strip()
        console.print(f"pruned by its search: {why}", markup=False, highlight=False, soft_wrap=True)
        for logger in loggers:
            if isinstance(logger, WandbView):
                logger.run.summary.update({"pruned": why})
        return True

    return end
