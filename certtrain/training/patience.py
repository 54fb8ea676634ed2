"""Ends a training whose validated certified accuracy no longer grows."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from certtrain.training.module import CertifiedTraining
from certtrain.training.survival import MONITOR


class Patience(Callback):
    """Stops after so many validations in a row without a better certified accuracy.

    Validations count from the end of the ramp of eps on: before it, accuracy follows the ramp.

    Args:
        validations: How many; None never stops.

    Attributes:
        best: Highest certified accuracy since the ramp ended; None before.
        waited: Validations since then.
    """

    def __init__(self, validations: int | None) -> None:
        self.validations = validations
        self.best: float | None = None
        self.waited = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that had stopped for this reason does not go on."""
        self._decide(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        assert isinstance(pl_module, CertifiedTraining)
        epoch = pl_module.phases.epoch(trainer.global_step)
        if trainer.state.fn != "fit" or pl_module.objective.eps.progress(epoch) < 1:
            return
        found = float(trainer.callback_metrics[MONITOR])
        if self.best is None or found > self.best:
            self.best, self.waited = found, 0
        else:
            self.waited += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        self._decide(trainer)

    def _decide(self, trainer: pl.Trainer) -> None:
        if self.validations is not None and self.waited >= self.validations:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """See `Callback`."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `Callback`."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]
