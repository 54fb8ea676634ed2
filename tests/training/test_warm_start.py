"""Runs that begin with plain gradients or another run's weights, and what every method writes about its steps."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from certtrain.cli.assembly.data import make_data, make_source
from certtrain.cli.assembly.network import begin_from_checkpoint, make_network
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import RunConfig, parse, plain
from certtrain.cli.job.job import Job
from certtrain.cli.job.preflight import check_parts
from certtrain.errors import CerttrainError
from certtrain.training.checkpoints import network_state
from certtrain.training.metrics import JsonlLogger
from certtrain.training.phases import Phases

pytestmark = pytest.mark.usefixtures("no_report")

SHORT = ("relaxation=ibp", "trainer.log_every_n_steps=1", "certify.enabled=false", "data.validation=0")
FULL_EPS = ("schedule.eps.warmup=0", "schedule.eps.ramp=0")
PGPE = ("method=pgpe", "pgpe.strategy=vmap", "pgpe.population_size=8")


def config(*overrides: str) -> RunConfig:
    (job,) = compose_jobs(Command((*SHORT, *overrides), False, False))
    return parse(plain(job))


def train(directory: Path, *overrides: str) -> list[dict]:
    directory.mkdir()
    logger = JsonlLogger(directory / "metrics.jsonl")
    Job(config(*overrides), directory, Console(quiet=True)).run([logger])
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "train/loss" in row]


def checkpoint(directory: Path) -> dict:
    return torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)


def test_steps_and_epochs_of_two_phases() -> None:
    phases = Phases(warm_epochs=2, warm_batches=10, batches=4)
    assert [phases.warm(step) for step in (0, 19, 20, 50)] == [True, True, False, False]
    assert [phases.epoch(step) for step in (0, 5, 20, 22, 28)] == [0.0, 0.5, 2.0, 2.5, 4.0]
    assert [phases.steps(epochs) for epochs in (1, 2, 5)] == [10, 20, 32]
    assert Phases(0, 0, 7).epoch(25) == 25 / 7


def test_plain_gradients_first_then_the_population(tmp_path: Path) -> None:
    sizes = "trainer.max_epochs=2", "data.batch_size=128"
    rows = train(tmp_path / "run", *PGPE, *FULL_EPS, "warm_start.epochs=1", *sizes)
    batches = make_data(config("data.batch_size=128"))
    batches.setup()
    switch = batches.batches_in(0)
    assert [row["step"] for row in rows] == list(range(2 * switch)), "one step per batch through both phases"
    assert ["sigma" in row for row in rows] == [False] * switch + [True] * switch
    unclipped = "optimizer.lr=0.01", "optimizer.clip_norm=null", *sizes
    plain_rows = train(tmp_path / "grad", "method=grad", *FULL_EPS, *unclipped)
    keys = ("train/loss", "gradient_norm", "lr", "eps")
    assert [[row[k] for k in keys] for row in rows[:switch]] == [[row[k] for k in keys] for row in plain_rows[:switch]]
    saved = checkpoint(tmp_path / "run")
    assert saved["global_step"] == 2 * switch
    counted = {int(state["step"]) for state in saved["optimizer_states"][0]["state"].values()}
    assert counted == {switch}, "the optimizer's state began anew with the method"


def test_a_generation_may_have_batches_of_its_own(tmp_path: Path) -> None:
    size = ("data.batch_size=128", "pgpe.batch_per_generation=500")
    rows = train(tmp_path / "run", *PGPE, *size, "warm_start.epochs=1", "trainer.max_epochs=4", "schedule.eps.ramp=4")
    data = make_data(config(*PGPE, *size, "warm_start.epochs=1"))
    data.setup()
    warm, later = data.batches_in(0), data.batches_in(1)
    assert (warm, later) == (len(data.train_rows) // 128, len(data.train_rows) // 500)
    assert [row["step"] for row in rows] == list(range(warm + 3 * later))
    assert [row["epoch"] for row in rows] == [0] * warm + [e for e in (1, 2, 3) for _ in range(later)]
    expected = [0.05 * i / warm / 4 for i in range(warm)] + [0.05 * (1 + i / later) / 4 for i in range(3 * later)]
    assert [row["eps"] for row in rows] == pytest.approx(expected)
    assert rows[-1]["lr"] < rows[0]["lr"] / 50, "the schedule of the rate knows how long the run is"


def test_a_run_begins_with_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    train(tmp_path / "first", "method=grad", "trainer.max_steps=3")
    path = tmp_path / "first" / "checkpoints" / "last.ckpt"
    rows = train(tmp_path / "second", *PGPE, f"warm_start.path={path}", "trainer.max_steps=1", "optimizer.lr=1e-12")
    assert rows[0]["step"] == 0
    first, second = (network_state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("first", "second"))
    torch.testing.assert_close(second, first, rtol=0, atol=1e-9)
    with pytest.raises(CerttrainError, match=r"warm_start.path: .* belongs to another architecture") as caught:
        check_parts(config(f"warm_start.path={path}", "model.widths=[7]"))
    assert "\n" not in str(caught.value)
    broken = tmp_path / "broken.ckpt"
    broken.write_text("no checkpoint")
    with pytest.raises(CerttrainError, match=r"warm_start.path: .*broken.ckpt is no checkpoint") as caught:
        check_parts(config(f"warm_start.path={broken}"))
    assert "\n" not in str(caught.value)


def test_weights_alone_are_enough(tmp_path: Path) -> None:
    """What torch.save(network.state_dict()) writes, whoever trained it."""
    chosen = config("method=grad", "seed=3")
    network, _ = make_network(chosen, make_source(chosen))
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    chosen = config("method=grad", f"warm_start.path={path}")
    other, _ = make_network(chosen, make_source(chosen))
    begin_from_checkpoint(chosen, other)
    torch.testing.assert_close(other.state_dict(), network.state_dict(), rtol=0, atol=0)
    name, weights = next((key, value) for key, value in network.state_dict().items() if key.endswith("weight"))
    torch.save({**network.state_dict(), name: weights * torch.nan}, path)
    with pytest.raises(CerttrainError, match=f"warm_start.path: .*{name} holds numbers that are not finite"):
        check_parts(chosen)
    for wrong in ({}, {"weights": 3}, {"a": weights}, [weights]):
        torch.save(wrong, path)
        with pytest.raises(CerttrainError, match="warm_start.path: ") as caught:
            check_parts(chosen)
        assert "\n" not in str(caught.value)


METHODS = {
    "pgpe": PGPE,
    "rgs": ("method=rgs", "rgs.samples=2"),
    "rgs_vmap": ("method=rgs", "rgs.samples=2", "rgs.strategy=vmap"),
    "learned": (*PGPE, "pgpe/sigma_rule=learned"),
    "clipup": (*PGPE, "optimizer=clipup", "optimizer.lr=0.3"),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_step_says_what_it_did(tmp_path: Path, method: str) -> None:
    rows = train(tmp_path / "run", *METHODS[method], "trainer.max_steps=4", "trainer.log_every_n_steps=2")
    assert [row["step"] for row in rows] == [1, 3]
    names = {"train/loss", "train/centre_loss", "population/std", "gradient_norm", "gradient_snr", "sigma"}
    for row in rows:
        assert names | {"step_length", "members_per_second"} <= set(row)
        assert row["step_length"] > 0
        assert row["train/centre_loss"] == pytest.approx(row["train/loss"], rel=0.5)
    if method == "clipup":
        assert rows[0]["step_length"] < 2 * 0.3 + 1e-6


@pytest.mark.parametrize("method", ["rgs", "rgs_vmap"])
def test_batch_norm_is_differentiated_as_with_plain_gradients(tmp_path: Path, method: str) -> None:
    """With hardly any noise, the mean of gradients is the gradient, through the batch statistics too."""
    model = ("model=cnn7", "model.convolutions=[[4,3,2,1]]", "model.widths=[8]", "trainer.max_steps=2")
    grad = train(tmp_path / "grad", "method=grad", *model, *FULL_EPS)
    mean = train(tmp_path / "rgs", *METHODS[method], "rgs.sigma=1e-6", *model, *FULL_EPS)
    assert mean[0]["gradient_norm"] == pytest.approx(grad[0]["gradient_norm"], rel=1e-3)


def test_a_learned_sigma_goes_into_the_checkpoint(tmp_path: Path) -> None:
    rows = train(tmp_path / "run", *PGPE, "pgpe/sigma_rule=learned", "trainer.max_steps=3")
    assert rows[0]["sigma"] == pytest.approx(0.05)
    assert len({row["sigma"] for row in rows}) == 3
    state = checkpoint(tmp_path / "run")["estimator_state"]
    assert list(state) == ["sigma"]
    assert 0.8 * rows[-1]["sigma"] <= float(state["sigma"]) <= 1.2 * rows[-1]["sigma"]


def test_a_schedule_of_sigma_ends_with_the_run(tmp_path: Path) -> None:
    rows = train(
        tmp_path / "run", *PGPE, "pgpe/sigma_rule=schedule", "pgpe.sigma_rule.shape=linear", "trainer.max_steps=5"
    )
    assert [row["sigma"] for row in rows] == pytest.approx([0.05, 0.04, 0.03, 0.02, 0.01])
