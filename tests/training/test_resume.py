"""A run that was interrupted and goes on ends exactly like one that was not: tensors, record, choice of the best."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from interruptions import StopAt
from rich.console import Console

from certtrain.cli.assembly import parts
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import RunConfig, parse, plain
from certtrain.cli.job.job import Job
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.errors import CerttrainError
from certtrain.losses import NOTHING, Loss, Prepared, Problem
from certtrain.networks.graph import Params
from certtrain.training.metrics import JsonlLogger, drop_rows
from certtrain.training.stopping import Stopped
from certtrain.training.survival import BEST, LAST, newest

pytestmark = pytest.mark.usefixtures("no_report")

logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)

# Batches of 256 of 1,293 images: epochs of 5 generations.
BASE = ("relaxation=ibp", "data.batch_size=256", "trainer.log_every_n_steps=1", "certify.enabled=false")
TWO = ("trainer.max_epochs=2",)
PGPE = ("method=pgpe", "pgpe.population_size=4", "pgpe.strategy=vmap")
NORM = ("model=cnn7", "model.convolutions=[[2,3,2,1]]", "model.widths=[8]")
RUNS = {
    "grad": ("method=grad", *TWO, "schedule.eps.warmup=0.5", "schedule.eps.ramp=1", "scheduler=multistep"),
    "pgpe": (*PGPE, *TWO),
    "augmented, with batch norm": (*PGPE, *TWO, *NORM, "data.augment.crop=1", "optimizer=sgd"),
    "rgs": ("method=rgs", "rgs.samples=2", *TWO),
    "a warm start with batches of its own, a learned sigma and ClipUp": (
        *(*PGPE, "pgpe/sigma_rule=learned", "pgpe.batch_per_generation=400", "optimizer=clipup", "optimizer.lr=0.1"),
        *("warm_start.epochs=2", "trainer.max_epochs=3"),
    ),
    "averaged, with recomputed statistics, in parts": (
        *("method=grad", "trainer.max_epochs=3", *NORM, "batch_norm=recomputed", "average=swa", "average.start=0.3"),
        *("trainer.accumulate=3", "scheduler=one_cycle", "init=shi", "loss.shi=0.5", "schedule.eps.shape=smooth"),
        *("schedule.eps.warmup=0", "schedule.eps.ramp=2"),
    ),
    "a moving average and cycles": ("method=grad", *TWO, "average=ema", "average.decay=0.9", "scheduler=cyclic"),
    "stopped early": (
        *("method=grad", "trainer.max_epochs=6", "stop.patience=1", "optimizer.lr=1e-9", "schedule.eps.warmup=0"),
        *("schedule.eps.ramp=0",),
    ),
    "limited by steps, inside an epoch": ("method=grad", "trainer.max_steps=8"),
    "limited by steps, after an epoch": ("method=grad", "trainer.max_steps=10"),
    "validated every other epoch": ("method=grad", "trainer.max_epochs=3", "trainer.validate_every=2"),
    "without validation": ("method=grad", *TWO, "data.validation=0"),
}


def replacing(key: str, value: Any) -> Callable[..., Any]:
    """`instantiate` with another result for one key."""
    original = parts.instantiate

    def instantiate(node: dict[str, Any], name: str, **given: Any) -> Any:
        return value if name == key else original(node, name, **given)

    return instantiate


def config(*overrides: str) -> RunConfig:
    (job,) = compose_jobs(Command((*BASE, *overrides), False, False))
    return parse(plain(job))


def go(directory: Path, chosen: RunConfig, stop: int | None = None) -> None:
    """Runs, or goes on, until it ends or is asked to stop for the n-th time."""
    directory.mkdir(exist_ok=True)
    start = newest(directory / "checkpoints")
    job = Job(chosen, directory, Console(quiet=True), StopAt(stop), start)
    loggers = [JsonlLogger(directory / "metrics.jsonl")]
    if stop is None:
        job.run(loggers)
        return
    with pytest.raises(Stopped) as stopped:
        job.run(loggers)
    assert stopped.value.step == steps(directory / "checkpoints" / LAST)


def steps(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


def rows(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "members_per_second"} for line in lines]


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, f"{key}/{name}")
    elif isinstance(node, (list, tuple)):
        yield from leaves(dict(enumerate(node)), key)
    else:
        yield key, node


def differing(first: Path, second: Path) -> list[str]:
    """What two checkpoints differ in: everything counts but times and Lightning's count of what it has done."""
    one, two = (dict(leaves(torch.load(path, weights_only=True))) for path in (first, second))
    return [
        key
        for key in sorted({*one, *two})
        if not key.startswith("/loops") and "seconds" not in key and not equal(one.get(key), two.get(key))
    ]


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    return type(one) is type(two) and one == two


def assert_same_run(one: Path, two: Path) -> None:
    assert rows(one) == rows(two)
    names = sorted(path.name for path in (one / "checkpoints").iterdir())
    assert names == sorted(path.name for path in (two / "checkpoints").iterdir())
    for name in names:
        assert differing(one / "checkpoints" / name, two / "checkpoints" / name) == [], name


@pytest.mark.parametrize("name", RUNS)
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, name: str) -> None:
    chosen = config(*RUNS[name])
    go(tmp_path / "whole", chosen)
    end = steps(tmp_path / "whole" / "checkpoints" / LAST)
    for stop in (1, 5, end - 1, end):  # 5 is the first epoch's end
        part = tmp_path / str(stop)
        go(part, chosen, stop)
        assert steps(part / "checkpoints" / LAST) == stop
        go(part, chosen)
        assert_same_run(tmp_path / "whole", part)


LONGER = {
    "eps still on its ramp, a moving average": (
        *("method=grad", "scheduler=constant", "schedule.eps.warmup=0.5", "schedule.eps.ramp=2", "average=ema"),
    ),
    "a population with a learned sigma": (*PGPE, "scheduler=constant", "pgpe/sigma_rule=learned"),
}


@pytest.mark.parametrize("name", LONGER)
def test_a_finished_run_with_more_epochs_equals_one_that_was_told_so(tmp_path: Path, name: str) -> None:
    go(tmp_path / "whole", config(*LONGER[name], "trainer.max_epochs=3"))
    part = RunDirectory(tmp_path / "part")
    go(part.path, config(*LONGER[name], *TWO))
    ended = {path.name: path.read_bytes() for path in part.checkpoints.iterdir()}
    kept = part.set_results_aside()
    assert kept == part.path / "earlier" / f"step-{2 * 5}"
    assert not (part.path / "summary.json").exists()
    assert json.loads((kept / "summary.json").read_text())["checkpoint"] in ended
    go(part.path, config(*LONGER[name], "trainer.max_epochs=3"))
    assert_same_run(tmp_path / "whole", part.path)
    assert {path.name: path.read_bytes() for path in (kept / "checkpoints").iterdir()} == ended
    assert part.set_results_aside() == part.path / "earlier" / "step-15"


def test_interrupted_at_every_generation(tmp_path: Path) -> None:
    """Every process lives for one generation; what the learning rate was says that no step was skipped or repeated."""
    chosen = config(*RUNS["grad"])
    go(tmp_path / "whole", chosen)
    for _ in range(10):
        go(tmp_path / "parts", chosen, stop=1)
    go(tmp_path / "parts", chosen)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    trained = [row for row in rows(tmp_path / "parts") if "lr" in row]
    assert [row["step"] for row in trained] == list(range(10))
    # Multiplied by 0.2 after 70 % and after 85 % of 10 steps: 7 and 8.
    factors = [1, 1, 1, 1, 1, 1, 0.2, 0.04, 0.04, 0.04]
    assert [row["lr"] for row in trained] == pytest.approx([0.005 * factor for factor in factors])


def test_a_run_goes_on_from_the_highest_step_in_another_place(tmp_path: Path) -> None:
    """As after a kill between best.ckpt and last.ckpt, and after the directory was moved."""
    chosen = config(*RUNS["grad"])
    go(tmp_path / "whole", chosen)
    go(tmp_path / "early", chosen, stop=4)
    go(tmp_path / "late", chosen, stop=5)
    shutil.copy(tmp_path / "early" / "checkpoints" / LAST, tmp_path / "late" / "checkpoints" / LAST)
    (tmp_path / "late").rename(tmp_path / "moved")
    assert newest(tmp_path / "moved" / "checkpoints") == tmp_path / "moved" / "checkpoints" / BEST
    go(tmp_path / "moved", chosen)
    assert_same_run(tmp_path / "whole", tmp_path / "moved")


def test_the_best_result_is_the_one_that_lies_in_best_ckpt(tmp_path: Path) -> None:
    """A process was killed after best.ckpt was replaced; what follows has to beat what is in the file."""
    chosen = config(*RUNS["grad"])
    go(tmp_path / "run", chosen, stop=4)
    checkpoints = tmp_path / "run" / "checkpoints"
    future = torch.load(checkpoints / LAST, weights_only=True)
    future["callbacks"]["Survival"]["best"] = 2.0
    future["global_step"] = 3
    torch.save(future, checkpoints / BEST)
    go(tmp_path / "run", chosen)
    assert steps(checkpoints / BEST) == 3, "no accuracy is better than 2"
    assert torch.load(checkpoints / LAST, weights_only=True)["callbacks"]["Survival"]["best"] == 2.0


def test_of_equal_results_the_later_one_is_kept(tmp_path: Path) -> None:
    """Nothing is certified at this radius: the first epoch, before the ramp of eps, would be no best network."""
    go(tmp_path / "run", config(*RUNS["grad"], "eps=1"))
    checkpoints = tmp_path / "run" / "checkpoints"
    assert torch.load(checkpoints / BEST, weights_only=True)["callbacks"]["Survival"]["best"] == 0
    assert steps(checkpoints / BEST) == steps(checkpoints / LAST)


def test_time_adds_up(tmp_path: Path) -> None:
    chosen = config(*RUNS["grad"])
    go(tmp_path / "run", chosen, stop=4)
    path = tmp_path / "run" / "checkpoints" / LAST
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["Survival"]["seconds"] = 1000.0
    torch.save(checkpoint, path)
    go(tmp_path / "run", chosen)
    assert 1000 < json.loads((tmp_path / "run" / "summary.json").read_text())["train_seconds"] < 1060


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    chosen = config(*RUNS["grad"])
    go(tmp_path / "run", chosen, stop=4)
    (tmp_path / "run" / "checkpoints" / ".last.ckpt.4711").write_bytes(b"half")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/loss": 1.0}\n{"step": 5, "tra')
    go(tmp_path / "run", chosen)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [BEST, LAST]
    assert [row["step"] for row in rows(tmp_path / "run") if "train/loss" in row] == list(range(10))


def test_a_damaged_checkpoint_is_no_reason_to_begin_anew(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for content in (b"", b"no checkpoint", b"PK\x03\x04"):
        (tmp_path / LAST).write_bytes(content)
        with pytest.raises(CerttrainError, match=r"last\.ckpt is no checkpoint") as refusal:
            newest(tmp_path)
        assert "\n" not in str(refusal.value)
    torch.save({"state_dict": {}}, tmp_path / LAST)
    with pytest.raises(CerttrainError, match="is no checkpoint of a training"):
        newest(tmp_path)


def test_the_record_is_cut_where_the_checkpoint_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    drop_rows(path, 3)
    assert not path.exists()
    kept = '{"step": 0, "a": 1}\n{"step": 2, "a": 1}\n'
    path.write_text(kept + '{"step": 3, "a": 1}\n{"step": 4}\n')
    drop_rows(path, 3)
    assert path.read_text() == kept
    path.write_text(kept + '{"step": 2')
    drop_rows(path, 3)
    assert path.read_text() == kept


def test_every_few_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    original = torch.save

    def spy(checkpoint: dict[str, Any], file: Any) -> None:
        if LAST in file.name:
            saved.append(checkpoint["global_step"])
        original(checkpoint, file)

    monkeypatch.setattr(torch, "save", spy)
    go(tmp_path / "run", config("method=grad", "trainer.max_epochs=2", "checkpoint.every_generations=3"))
    assert saved == [3, 5, 6, 9, 10]


class Failing(Loss):
    """No number for the members of one generation, or for some of them."""

    def __init__(self, from_call: int, odd_only: bool) -> None:
        self.calls = 0
        self.from_call = from_call
        self.odd_only = odd_only

    def per_image(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> torch.Tensor:
        return problem.inputs.new_zeros(len(problem.inputs))

    def __call__(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> torch.Tensor:
        self.calls += 1
        bad = self.calls >= self.from_call and (self.calls % 2 == 1 or not self.odd_only)
        return problem.inputs.sum() * (float("nan") if bad else 0.0) + sum(p.square().sum() for p in params.values())


@pytest.mark.parametrize(
    ("overrides", "loss", "message"),
    [
        (("method=grad",), Failing(8, False), "step 7: loss nan"),
        (
            (*PGPE, "pgpe.strategy=loop", "pgpe.max_dropped=0.25"),
            Failing(45, True),
            "1 of the 2 antithetic pairs have no finite loss, more than pgpe.max_dropped=0.25 allows",
        ),
    ],
)
def test_a_bad_step_does_not_replace_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], loss: Failing, message: str
) -> None:
    """Generation 7, the eighth, fails: 8 calls of grad; the 45th of 6: the centre, the gradient and 4 members."""
    monkeypatch.setattr("certtrain.cli.assembly.parts.instantiate", replacing("loss", loss))
    chosen = config(*overrides, *TWO, "checkpoint.every_generations=3", "optimizer.lr=1e-3")
    with pytest.raises(CerttrainError, match=message) as stopped:
        go(tmp_path / "run", chosen)
    last = tmp_path / "run" / "checkpoints" / LAST
    assert steps(last) == 6
    assert str(stopped.value).endswith(f"the last good checkpoint is {last} (step 6)")
    assert "\n" not in str(stopped.value)
