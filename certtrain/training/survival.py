"""What of a run outlives its process: best.ckpt and last.ckpt, and from where a resumed run goes on.

A checkpoint holds everything that the next generation depends on: parameters, optimizer, scheduler and estimator, the
random state, the number of the generation (noise, eps and batches are functions of it) and the best result so far.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loops.loop import _Loop

from certtrain.data.sampler import ShuffledBatches
from certtrain.errors import CerttrainError
from certtrain.training.checkpoints import read_checkpoint, remove_leftovers
from certtrain.training.module import CertifiedTraining
from certtrain.training.stopping import Stopped, StopRequest

MONITOR = "val/certified_accuracy"
BEST, LAST = "best.ckpt", "last.ckpt"


def newest(directory: Path) -> Path | None:
    """The checkpoint that a run goes on from, the one of the highest step; None if there is none.

    Raises:
        CerttrainError: If one of them cannot be read: beginning anew instead would be silent.
    """
    found = [path for path in (directory / LAST, directory / BEST) if path.is_file()]
    return max(found, key=reached_step, default=None)


def reached_step(path: Path) -> int:
    """Generations that the run of a checkpoint had behind it.

    Raises:
        CerttrainError: If the file is absent, damaged or of something else.
    """
    step = read_checkpoint(path, mmap=True).get("global_step")
    if not isinstance(step, int) or step < 0:
        raise CerttrainError(f"{path} is no checkpoint of a training")
    return step


class Survival(Checkpoint):
    """Saves last.ckpt every few generations and after every epoch, and best.ckpt by certified validation accuracy.

    The last generation of an epoch is saved once the validation that follows it is in the record, so a run that goes on
    from there has nothing to make up for.

    Args:
        directory: Where the checkpoints lie.
        every: Generations between two saves of last.ckpt: what a killed process loses at most.
        request: Who may ask the run to stop.

    Attributes:
        best: Highest certified validation accuracy so far; None before the first validation.
        seconds: Time that training took up to now, in all processes that the run has had.
    """

    def __init__(self, directory: Path, every: int, request: StopRequest) -> None:
        self.directory = directory
        self.every = every
        self.request = request
        self.best: float | None = None
        self._score: float | None = None
        self._spent = 0.0
        self._started: float | None = None
        self._random: dict[str, Any] = {}

    @property
    def seconds(self) -> float:
        return self._spent + (0.0 if self._started is None else time.perf_counter() - self._started)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See `Callback`."""
        if trainer.is_global_zero:
            remove_leftovers(self.directory)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the batches and the random state where the checkpoint left them."""
        self._started = time.perf_counter()
        sampler = trainer.train_dataloader.sampler  # type: ignore[union-attr]
        assert isinstance(sampler, ShuffledBatches)
        epoch, batch = _place(trainer)
        sampler.resume(epoch, batch)
        if batch == 0:
            _begin_epoch(trainer)
        _restore(self._random)
        self.request.wait()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See `Callback`."""
        if _place(trainer)[1]:
            self._save(trainer, due=trainer.global_step % self.every == 0)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`. By itself, too, a validation is begun by Lightning with handlers of its own."""
        self.request.install()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        if trainer.state.fn == "fit":
            self._score = float(trainer.callback_metrics[MONITOR])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        score, self._score = self._score, None
        # Of equals the later one: where the validating relaxation certifies nothing, the first epoch is no best.
        if score is not None and (self.best is None or score >= self.best):
            self.best = score
            trainer.save_checkpoint(self.directory / BEST)
        self._save(trainer, due=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        self._spent, self._started = self.seconds, None
        self.request.stop_waiting()
        if number := self.request.agreed(trainer.strategy.root_device):
            raise Stopped(number, trainer.global_step)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """See `Callback`."""
        self.request.stop_waiting()

    def _save(self, trainer: pl.Trainer, due: bool) -> None:
        number = self.request.agreed(trainer.strategy.root_device)
        if due or number:
            trainer.save_checkpoint(self.directory / LAST)
        if number:
            raise Stopped(number, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """See `Callback`."""
        return {"best": self.best, "seconds": self.seconds, "random": _random_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `Callback`. The best result is the one that lies in best.ckpt, which may be newer than last.ckpt."""
        self._spent, self._random = state_dict["seconds"], state_dict["random"]
        best = self.directory / BEST
        if best.is_file():
            self.best = read_checkpoint(best)["callbacks"][self.state_key]["best"]


def _place(trainer: pl.Trainer) -> tuple[int, int]:
    """The epoch of the next step, and its number in there."""
    module = trainer.lightning_module
    assert isinstance(module, CertifiedTraining)
    return module.phases.place(trainer.global_step)


def _begin_epoch(trainer: pl.Trainer) -> None:
    """Between two epochs nothing is being restarted.

    Lightning sees that too, except with max_steps: then it would end the finished epoch a second time.
    """
    loop = trainer.fit_loop
    for count in (loop.epoch_progress.current, loop.epoch_progress.total):
        count.completed = count.processed  # type: ignore[attr-defined]
    for part in (loop, loop.epoch_loop, loop.epoch_loop.val_loop):
        _Loop.restarting.fset(part, False)  # type: ignore[attr-defined]
        part.reset_restart_stage()


def _random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _restore(random: dict[str, Any]) -> None:
    if random:
        torch.set_rng_state(random["cpu"])
    if random.get("cuda") and len(random["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(random["cuda"])
