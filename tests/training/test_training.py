"""Training runs on digits, small enough for a test: what is optimised, logged, saved and reproduced."""

import json
import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console

from certtrain.bounds import Box, margin_spec
from certtrain.cli.assembly.data import make_data
from certtrain.cli.assembly.network import make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import RunConfig, parse, plain
from certtrain.cli.job.job import Job
from certtrain.errors import CerttrainError, ConfigError
from certtrain.networks import parameters
from certtrain.training.checkpoints import AtomicCheckpointIO, load_network, network_state
from certtrain.training.metrics import JsonlLogger
from certtrain.training.module import NonFiniteLoss

SHORT = ("trainer.max_epochs=2", "trainer.log_every_n_steps=1", "certify.limit=20", "certify.attack.steps=3")


def config(*overrides: str) -> RunConfig:
    (job,) = compose_jobs(Command((*SHORT, *overrides), False, False))
    return parse(plain(job))


def train(directory: Path, *overrides: str) -> tuple[dict, list[dict]]:
    """Runs a whole job; returns its summary and its metrics."""
    directory.mkdir()
    logger = JsonlLogger(directory / "metrics.jsonl")
    record = Job(config(*overrides), directory, Console(quiet=True)).run([logger])
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return record, rows


# A named strategy: what `auto` takes is up to the clock, see test_choice.
METHODS = {
    "grad": ("method=grad", "relaxation=ibp"),
    "pgpe": ("method=pgpe", "relaxation=ibp", "pgpe.population_size=8", "pgpe.strategy=vmap"),
}


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_numbers(tmp_path: Path, method: str) -> None:
    first, first_rows = train(tmp_path / "a", *METHODS[method])
    second, second_rows = train(tmp_path / "b", *METHODS[method])
    other, _ = train(tmp_path / "c", *METHODS[method], "seed=1")
    timed = {"train_seconds", "certify_seconds"}
    for record in (first, second):
        for stage in record["stages"]:
            assert stage.pop("seconds") >= 0
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in second.items() if k not in timed}
    drop = "members_per_second"
    assert [{k: v for k, v in r.items() if k != drop} for r in first_rows] == [
        {k: v for k, v in r.items() if k != drop} for r in second_rows
    ]
    states = [network_state(tmp_path / name / "checkpoints" / "last.ckpt") for name in "abc"]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert any(not torch.equal(states[0][k], states[2][k]) for k in states[0])
    assert other["seed"] == 1


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_reproduces_the_metric_it_was_chosen_by(tmp_path: Path, method: str) -> None:
    """Training-time validation and evaluation of the reloaded checkpoint agree, exactly."""
    _, rows = train(tmp_path / "run", *METHODS[method])
    validated = [r for r in rows if "val/certified_accuracy" in r]
    best = max(reversed(validated), key=lambda r: r["val/certified_accuracy"])  # of equals the later one
    chosen = config(*METHODS[method])
    data = make_data(chosen)
    data.setup()
    network, graph = make_network(chosen, data.source)
    load_network(network, tmp_path / "run" / "checkpoints" / "best.ckpt")
    training = make_training(chosen, network.eval(), graph)
    natural = certified = count = 0
    with torch.no_grad():
        for inputs, labels, _ in data.val_dataloader():
            box = Box.linf(inputs, chosen.eps)
            margins = training.objective.relaxation.bound(
                graph, parameters(network), box, margin_spec(labels, 10), "lower"
            ).lower
            certified += int((margins > 0).all(1).sum())
            natural += int((network(inputs).argmax(1) == labels).sum())
            count += len(labels)
    assert certified / count == pytest.approx(best["val/certified_accuracy"], abs=1e-6)
    assert natural / count == pytest.approx(best["val/natural_accuracy"], abs=1e-6)


def test_the_record_of_a_run(tmp_path: Path) -> None:
    record, rows = train(tmp_path / "run", *METHODS["pgpe"], "schedule.eps.warmup=1", "schedule.eps.ramp=0.5")
    steps = [r for r in rows if "train/loss" in r]
    assert len(steps) == 40, "one row per step: 1,293 training images, batches of 64, two epochs"
    assert [r["step"] for r in steps] == list(range(40))
    assert steps[0]["eps"] == 0.0
    assert steps[25]["eps"] == pytest.approx(0.05 * 5 / 10)
    assert steps[-1]["eps"] == pytest.approx(0.05)
    assert all(r["sigma"] == pytest.approx(0.05) and r["members_per_second"] > 0 for r in steps)
    for name in ("summary.json", "ledger.jsonl", "curves.png", "margins.png", "report.html"):
        assert (tmp_path / "run" / name).stat().st_size > 0, name
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary == record
    assert 0 <= summary["certified_accuracy"] <= summary["attacked_accuracy"] <= summary["natural_accuracy"] <= 1
    assert summary["certified_accuracy"] >= max(summary["certified_accuracy_by"].values())
    assert (summary["relaxation"], summary["method"], summary["eps"]) == ("ibp", "pgpe", 0.05)
    assert (summary["data"]["name"], summary["data"]["train_images"], summary["data"]["test_images"]) == (
        "digits",
        1437,
        360,
    )
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 40


@pytest.mark.usefixtures("no_report")
def test_training_learns(tmp_path: Path) -> None:
    record, rows = train(
        tmp_path / "run",
        "method=grad",
        "relaxation=deeppoly",
        "trainer.max_epochs=12",
        "schedule.eps.ramp=5",
        "certify.limit=360",
    )
    assert record["natural_accuracy"] > 0.9
    assert record["certified_accuracy"] > 0.6
    losses = [r["train/loss"] for r in rows if "train/loss" in r]
    assert losses[-1] < losses[0] / 2


@pytest.mark.usefixtures("no_report")
def test_stopping_before_the_first_validation_leaves_a_checkpoint(tmp_path: Path) -> None:
    record, rows = train(tmp_path / "run", *METHODS["grad"], "trainer.max_steps=3")
    assert len([r for r in rows if "train/loss" in r]) == 3
    assert record["natural_accuracy"] is not None
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_without_certification_and_without_validation(tmp_path: Path) -> None:
    record, rows = train(
        tmp_path / "run", *METHODS["grad"], "certify.enabled=false", "data.validation=0", "trainer.max_epochs=1"
    )
    assert record.get("certified_accuracy") is None
    assert not [r for r in rows if "val/loss" in r]
    assert not (tmp_path / "run" / "ledger.jsonl").exists()


@pytest.mark.usefixtures("no_report")
def test_batch_norm_trains_and_evaluates_alike(tmp_path: Path) -> None:
    model = ("model=cnn7", "model.convolutions=[[4,3,2,1]]", "model.widths=[8]")
    for method in ("grad", "pgpe"):
        record, _ = train(tmp_path / method, *METHODS[method], *model, "trainer.max_steps=25")
        state = network_state(tmp_path / method / "checkpoints" / "last.ckpt")
        tracked = next(v for k, v in state.items() if k.endswith("num_batches_tracked"))
        assert int(tracked) == 25
        assert record["natural_accuracy"] is not None


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match="lower optimizer.lr"):
        train(
            tmp_path / "run",
            "method=grad",
            "relaxation=ibp",
            "optimizer.lr=1e30",
            "optimizer.clip_norm=null",
            "schedule.eps.warmup=0",
            "schedule.eps.ramp=0",
        )


def test_gradients_are_clipped(tmp_path: Path) -> None:
    chosen = config(
        "method=grad",
        "relaxation=ibp",
        "optimizer=sgd",
        "optimizer.lr=1.0",
        "optimizer.clip_norm=0.01",
        "optimizer.momentum=0.0",
        "scheduler=constant",
        "trainer.max_steps=1",
    )
    data = make_data(chosen)
    network, graph = make_network(chosen, data.source)
    before = {k: p.detach().clone() for k, p in network.named_parameters()}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(make_training(chosen, network, graph), data)
    moved = torch.cat([(p.detach() - before[k]).flatten() for k, p in network.named_parameters()])
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)


def test_a_checkpoint_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {"network.w": torch.ones(2)}}, path)

    class Unpicklable:
        def __reduce__(self) -> str:
            raise RuntimeError("killed in the middle of writing")

    with pytest.raises(RuntimeError, match="killed"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"network.w": Unpicklable()}}, path)
    assert network_state(path)["w"].tolist() == [1.0, 1.0]
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_wrong_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(CerttrainError, match="no checkpoint at"):
        network_state(tmp_path / "absent.ckpt")
    torch.save({"state_dict": {"other.w": torch.ones(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(CerttrainError, match="holds no network"):
        network_state(tmp_path / "other.ckpt")
    torch.save({"state_dict": {"network.weight": torch.ones(1, 2)}}, tmp_path / "shape.ckpt")
    with pytest.raises(CerttrainError, match="another architecture"):
        load_network(torch.nn.Linear(3, 1), tmp_path / "shape.ckpt")


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"a": math.nan, "b": 1.5}, step=3)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 3, "a": None, "b": 1.5}


@pytest.mark.parametrize("method", ["grad", "pgpe", "rgs"])
def test_batch_norm_refuses_a_single_image_that_only_the_data_reveal(tmp_path: Path, method: str) -> None:
    """Where one image is left to train on, the batch is smaller than what was configured."""
    network = ("model=cnn3", "model.convolutions=[[2,4,2,0]]", "model.norm=batch", "model.widths=[4]")
    chosen = config(f"method={method}", "relaxation=ibp", f"data.validation={1436 / 1437}", *network)
    with pytest.raises(ConfigError, match="one value per channel in a batch of 1"):
        Job(chosen, tmp_path, Console(quiet=True)).run([])
