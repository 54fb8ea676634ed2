"""What a person sees while training: one live line in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from certtrain.times import about
from certtrain.training.module import CertifiedTraining

# Less than the silence that is broken by a line of its own (`certtrain.cli.process.heartbeat`): while steps are short,
# this one comes first.
LINE_SECONDS = 8.0
SHOWN = {
    "train/loss": ("loss", "{:.3f}"),
    "eps": ("eps", "{:.4g}"),
    "val/certified_accuracy": ("val certified", "{:.1%}"),
    "val/natural_accuracy": ("val natural", "{:.1%}"),
    "members_per_second": ("members/s", "{:,.0f}"),
}
# Of the live line beside its numbers: the bar, and gaps.
BAR, GAP = 10, "  "


def readable(metrics: dict[str, Any]) -> dict[str, str]:
    """Logged values that are worth showing, under short names, the most telling ones first."""
    return {label: form.format(float(metrics[key])) for key, (label, form) in SHOWN.items() if key in metrics}


def fitting(parts: Iterable[str], width: int) -> str:
    """As many of some parts as fit beside each other, each of them whole."""
    line = ""
    for part in parts:
        longer = f"{line}{GAP}{part}" if line else part
        if len(longer) > width:
            break
        line = longer
    return line


@dataclass
class Pace:
    """How fast a run goes, everything included that happens between its steps.

    The first step of a process does not count: what is set up once takes longer than hundreds of steps.

    Attributes:
        first: Steps that it had behind it when the time began to count.
        started: When that was.
    """

    first: int
    started: float

    def left(self, step: int, total: int) -> str:
        """The time until the last step, in words; a question mark before there is anything to judge by."""
        done = step - self.first
        if step == total:
            return about(0)
        return "?" if done < 1 else about((time.monotonic() - self.started) / done * (total - step))


def place(module: CertifiedTraining, step: int) -> str:
    """The epoch of the last of so many steps, and how many epochs the run has: "epoch 3/60", counted from one."""
    epoch, last = (module.phases.place(max(steps, 1) - 1)[0] + 1 for steps in (step, module.total_steps))
    return f"epoch {epoch}/{last}"


class Progressing(Callback, ABC):
    """Counts steps and time; subclasses show them."""

    pace: Pace

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        self.pace = Pace(trainer.global_step, time.monotonic())
        self._warm = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """See `Callback`."""
        if not self._warm and trainer.global_step > self.pace.first:
            self._warm = True
            self.pace = Pace(trainer.global_step, time.monotonic())
        self.show_step(trainer, pl_module)

    @abstractmethod
    def show_step(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Shows what is to be seen behind a batch."""


class LiveProgress(Progressing):
    """One line for the whole run, as wide as the terminal at most.

    Args:
        console: Where it is.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        super().on_train_start(trainer, pl_module)
        assert isinstance(pl_module, CertifiedTraining)
        columns = (TextColumn("{task.description}"), BarColumn(BAR), TextColumn("{task.fields[numbers]}"))
        self._bar = Progress(*columns, console=self.console, transient=True)
        self._task = self._bar.add_task("", total=pl_module.total_steps, numbers="")
        self._show(trainer, pl_module)
        self._bar.start()

    def show_step(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """See `Progressing`."""
        self._show(trainer, module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        self._show(trainer, pl_module, "validates")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See `Callback`."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """See `Callback`."""
        self._stop()

    def _show(self, trainer: pl.Trainer, module: pl.LightningModule, doing: str = "") -> None:
        if self._bar is None:
            return
        assert isinstance(module, CertifiedTraining)
        step, total = trainer.global_step, module.total_steps
        where = place(module, step)
        numbers = [f"{name} {value}" for name, value in readable(trainer.progress_bar_metrics).items()]
        parts = [f"{self.pace.left(step, total)} left", *([doing] if doing else numbers)]
        # What the bar and the gaps around it leave.
        room = self.console.width - len(where) - BAR - len(GAP)
        self._bar.update(self._task, description=where, completed=step, numbers=fitting(parts, room))

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class LineProgress(Progressing):
    """One line every few seconds, for logs and pipes.

    Args:
        console: Where it writes.
        seconds: Time between lines.
    """

    def __init__(self, console: Console, seconds: float = LINE_SECONDS) -> None:
        self.console = console
        self.seconds = seconds
        self._next = 0.0

    def show_step(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """See `Progressing`."""
        assert isinstance(module, CertifiedTraining)
        step, total = trainer.global_step, module.total_steps
        if time.monotonic() < self._next and step < total:
            return
        self._next = time.monotonic() + self.seconds
        numbers = [f"{name} {value}" for name, value in readable(trainer.progress_bar_metrics).items()]
        left = "" if step == self.pace.first and step < total else f"{self.pace.left(step, total)} left"
        parts = [part for part in (f"step {step}/{total}", place(module, step), left) if part]
        parts += numbers
        self.console.print(GAP.join(parts), highlight=False, soft_wrap=True)


def progress_callback(console: Console) -> Callback:
    """A live line where the output is a terminal, lines otherwise."""
    return LiveProgress(console) if console.is_terminal else LineProgress(console)
