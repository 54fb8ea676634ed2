"""What a person sees while training: how far the whole run is, and what fits the line."""

import time
from io import StringIO
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from certtrain.training.module import CertifiedTraining
from certtrain.training.phases import Phases
from certtrain.training.progress import LineProgress, LiveProgress, Pace, fitting, place

METRICS = {
    "train/loss": torch.tensor(1.25),
    "eps": 0.0313725,
    "val/certified_accuracy": torch.tensor(0.881),
    "val/natural_accuracy": torch.tensor(0.972),
    "members_per_second": 12345.6,
}


def module(total: int, phases: Phases) -> CertifiedTraining:
    found = object.__new__(CertifiedTraining)
    found.__dict__.update(total_steps=total, phases=phases)
    return found


def trainer(step: int, metrics: dict | None = None) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, progress_bar_metrics=METRICS if metrics is None else metrics)


@pytest.mark.parametrize(
    ("step", "shown"), [(0, "epoch 1/4"), (1, "epoch 1/4"), (5, "epoch 1/4"), (6, "epoch 2/4"), (20, "epoch 4/4")]
)
def test_epochs_are_counted_from_one_and_a_last_step_belongs_to_its_epoch(step: int, shown: str) -> None:
    assert place(module(20, Phases(0, 0, 5)), step) == shown
    assert place(module(8, Phases(0, 0, 5)), 8) == "epoch 2/2", "a run that is limited by steps ends inside an epoch"
    assert place(module(11, Phases(1, 5, 3)), 11) == "epoch 3/3", "batches of a warm start have another size"


def test_time_left_is_of_the_whole_run_and_of_this_process() -> None:
    pace = Pace(first=100, started=time.monotonic() - 50)
    assert pace.left(100, 200) == "?"
    assert pace.left(150, 200) == "50 s", "a step took a second, whatever steps were made before"
    assert pace.left(200, 200) == "0 s"


def test_what_does_not_fit_is_left_out_whole() -> None:
    assert fitting(["loss 1.250", "eps 0.03", "members/s 9"], 20) == "loss 1.250  eps 0.03"
    assert fitting(["loss 1.250"], 5) == ""


@pytest.mark.parametrize("width", [80, 60, 40, 200])
def test_the_live_line_is_one_line_of_the_terminal(width: int) -> None:
    console = Console(file=StringIO(), width=width, force_terminal=True, force_interactive=True)
    bar, run = LiveProgress(console), module(60_000, Phases(0, 0, 1000))
    bar.on_train_start(trainer(0, {}), run)
    bar.on_train_batch_end(trainer(1), run, None, None, 0)
    assert "? left" in bar._bar.tasks[0].fields["numbers"], "the first step says nothing of the others"
    bar.pace = Pace(0, time.monotonic() - 36_000)
    bar.on_train_batch_end(trainer(59_000), run, None, None, 0)
    task = bar._bar.tasks[0]
    shown = f"{task.description} {10 * '-'} {task.fields['numbers']}"
    assert len(shown) <= width
    assert shown.startswith("epoch 59/60 ----------")
    assert "10 min left" in shown
    assert ("loss 1.250  eps 0.03137" in shown) is (width >= 60)
    assert ("members/s 12,346" in shown) is (width == 200)
    bar.on_validation_start(trainer(59_000), run)
    assert ("validates" in bar._bar.tasks[0].fields["numbers"]) is (width >= 60)
    bar.on_exception(trainer(59_000), run, ValueError())
    bar.on_train_batch_end(trainer(59_000), run, None, None, 0)
    assert bar._bar is None


def test_a_piped_line_is_one_line_whatever_is_in_it() -> None:
    console = Console(file=StringIO(), width=40)
    lines, run = LineProgress(console, seconds=1000.0), module(40, Phases(0, 0, 20))
    lines.on_train_start(trainer(0), run)
    for step in (1, 2, 40):
        lines.on_train_batch_end(trainer(step), run, None, None, 0)
    printed = console.file.getvalue().splitlines()
    assert len(printed) == 2
    assert printed[0].startswith("step 1/40  epoch 1/2  loss 1.250"), "before there is anything to judge by, no time"
    numbers = "loss 1.250  eps 0.03137  val certified 88.1%  val natural 97.2%  members/s 12,346"
    assert printed[1] == f"step 40/40  epoch 2/2  0 s left  {numbers}"
