"""What a person sees while training: a live bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from rich.console import Console

from certtrain.training.module import CertifiedTraining

# Less than the silence that is broken by a line of its own (`certtrain.cli.heartbeat`): while steps are short, this
# one comes first.
LINE_SECONDS = 8.0
SHOWN = {
    "train/loss": ("loss", "{:.3f}"),
    "eps": ("eps", "{:.4g}"),
    "members_per_second": ("members/s", "{:,.0f}"),
    "val/natural_accuracy": ("val natural", "{:.1%}"),
    "val/certified_accuracy": ("val certified", "{:.1%}"),
}


def readable(metrics: dict[str, Any]) -> dict[str, str]:
    """Logged values that are worth showing, under short names."""
    return {label: form.format(float(metrics[key])) for key, (label, form) in SHOWN.items() if key in metrics}


class LiveProgress(RichProgressBar):
    """Lightning's bar with readable numbers: loss, eps, members per second, validation accuracies."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """See `RichProgressBar`."""
        return dict(readable(trainer.progress_bar_metrics))


class LineProgress(Callback):
    """One line every few seconds, for logs and pipes.

    Args:
        console: Where it writes.
        seconds: Time between lines.
    """

    def __init__(self, console: Console, seconds: float = LINE_SECONDS) -> None:
        self.console = console
        self.seconds = seconds
        self._next = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See `Callback`."""
        assert isinstance(pl_module, CertifiedTraining)
        total = pl_module.total_steps
        if time.monotonic() < self._next and trainer.global_step < total:
            return
        self._next = time.monotonic() + self.seconds
        numbers = "  ".join(f"{k} {v}" for k, v in readable(trainer.progress_bar_metrics).items())
        self.console.print(
            f"step {trainer.global_step}/{total}  epoch {trainer.current_epoch + 1}  {numbers}", highlight=False
        )


def progress_callback(console: Console) -> Callback:
    """A live bar where the output is a terminal, lines otherwise."""
    return LiveProgress(leave=False) if console.is_terminal else LineProgress(console)
