"""pgpe.strategy=auto in a run: measured once, at the first generation, told, kept in the checkpoint."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from lirpa_cases import needs_auto_lirpa

from certtrain.cli.assembly.data import make_data
from certtrain.cli.assembly.network import make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.job.preflight import preflight
from certtrain.errors import ConfigError
from certtrain.gradients import PGPE, Choice, LossFunction
from certtrain.gradients.members import Members
from certtrain.losses import NOTHING, Prepared, Problem, RobustCrossEntropy
from certtrain.networks.graph import Params
from certtrain.training.checkpoints import AtomicCheckpointIO
from certtrain.training.metrics import JsonlLogger
from certtrain.training.module import CertifiedTraining

MEASURE = "certtrain.gradients.pgpe.fastest"
AUTO = ("relaxation=ibp", "pgpe.strategy=auto", "pgpe.population_size=4", "trainer.max_epochs=2")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Choice]:
    """Measurements of a machine where the loop is faster, whatever the real one is like."""
    taken: list[Choice] = []

    def measure(loss: LossFunction, members: Members, chunk: int) -> Choice:
        loss(members.params)
        taken.append(Choice("loop", {"vmap": 0.5, "loop": 0.25}, {}))
        return taken[-1]

    monkeypatch.setattr(MEASURE, measure)
    return taken


def make(*overrides: str) -> tuple[CertifiedTraining, pl.LightningDataModule]:
    (job,) = compose_jobs(Command((*AUTO, *overrides), False, False))
    config = parse(plain(job))
    data = make_data(config)
    network, graph = make_network(config, data.source)
    return make_training(config, network, graph), data


def fit(training: CertifiedTraining, data: pl.LightningDataModule, path: Path, steps: int, resume: Path | None = None):
    """Trains to a number of steps; returns the rows of metrics.jsonl and the checkpoint."""
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=JsonlLogger(path / "metrics.jsonl"),
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        log_every_n_steps=1,
    )
    trainer.fit(training, data, ckpt_path=resume)
    trainer.save_checkpoint(path / f"{steps}.ckpt")
    return [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()], path / f"{steps}.ckpt"


def test_it_is_chosen_once_and_told(
    tmp_path: Path,
    measured: list[Choice],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "certtrain")
    training, data = make()
    rows, checkpoint = fit(training, data, tmp_path, steps=3)
    assert len(measured) == 1
    assert isinstance(training.estimator, PGPE)
    assert training.estimator.strategy == "loop"
    assert [r for r in rows if "population/vmap_seconds" in r] == [
        {"step": 0, "population/vmap_seconds": 0.5, "population/loop_seconds": 0.25}
    ]
    assert [r["step"] for r in rows if "train/loss" in r] == [0, 1, 2]
    assert capsys.readouterr().out.count("population strategy auto: loop (") == 1
    assert [r.message for r in caplog.records if r.name.startswith("certtrain")] == [str(measured[0])]
    assert torch.load(checkpoint, weights_only=True)["population_strategy"] == "loop"


def test_a_resumed_run_goes_on_with_the_choice_it_began_with(tmp_path: Path, measured: list[Choice]) -> None:
    _, checkpoint = fit(*make(), tmp_path, steps=2)
    training, data = make()
    _, second = fit(training, data, tmp_path, steps=4, resume=checkpoint)
    assert len(measured) == 1
    assert training.global_step == 4
    assert isinstance(training.estimator, PGPE)
    assert training.estimator.strategy == "loop"
    assert torch.load(second, weights_only=True)["population_strategy"] == "loop"
    training, data = make("pgpe.strategy=vmap")
    _, third = fit(training, data, tmp_path, steps=6, resume=checkpoint)
    assert isinstance(training.estimator, PGPE)
    assert training.estimator.strategy == "vmap", "what the configuration names comes first"
    assert "population_strategy" not in torch.load(third, weights_only=True)


def test_a_named_strategy_is_not_measured(
    tmp_path: Path, measured: list[Choice], capsys: pytest.CaptureFixture[str]
) -> None:
    rows, checkpoint = fit(*make("pgpe.strategy=loop"), tmp_path, steps=1)
    assert measured == []
    assert "strategy" not in capsys.readouterr().out
    assert not [r for r in rows if "population/loop_seconds" in r]
    assert "population_strategy" not in torch.load(checkpoint, weights_only=True)


def test_it_is_measured_at_the_radius_where_training_ends(
    tmp_path: Path, measured: list[Choice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training begins at eps 0, where the loss has no bounds in it and costs nothing like a later one."""
    training, data = make("schedule.eps.warmup=1", "schedule.natural_weight.start=1", "schedule.natural_weight.end=0.5")
    seen: list[tuple[float, float]] = []
    original = training.objective.loss

    class Watched(RobustCrossEntropy):
        def per_image(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> torch.Tensor:
            seen.append((float(problem.box.radius.max()), problem.natural_weight))
            return original.per_image(problem, params, prepared)

    training.objective = replace(training.objective, loss=Watched())
    fit(training, data, tmp_path, steps=1)
    measured_at = [(eps, weight) for eps, weight in seen if eps > 0]
    assert measured_at
    assert seen[: len(measured_at)] == [(pytest.approx(0.05), pytest.approx(0.5))] * len(measured_at)
    assert {eps for eps, _ in seen[len(measured_at) :]} == {0.0}


def test_measuring_does_not_count_as_a_batch(tmp_path: Path, measured: list[Choice]) -> None:
    training, data = make("model=cnn7", "model.convolutions=[[4,3,2,1]]", "model.widths=[8]")
    fit(training, data, tmp_path, steps=2)
    assert len(measured) == 1
    tracked = [int(v) for k, v in training.network.state_dict().items() if k.endswith("num_batches_tracked")]
    assert tracked
    assert set(tracked) == {2}


@needs_auto_lirpa
def test_a_library_that_refuses_vmap_is_evaluated_in_a_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = "relaxation.backend=auto_lirpa"
    preflight(Command((*AUTO, library, f"hydra.run.dir={tmp_path / 'run'}"), False, False))
    with pytest.raises(ConfigError, match="does not work under torch.func.vmap"):
        preflight(Command((*AUTO, library, "pgpe.strategy=vmap", f"hydra.run.dir={tmp_path / 'run'}"), False, False))
    training, data = make(library)
    rows, _ = fit(training, data, tmp_path, steps=1)
    assert isinstance(training.estimator, PGPE)
    assert training.estimator.strategy == "loop"
    assert "vmap is not possible: relaxation.backend=auto_lirpa" in capsys.readouterr().out
    assert [r["population/loop_seconds"] > 0 for r in rows if "population/loop_seconds" in r] == [True]


def test_the_rehearsal_measures_nothing(tmp_path: Path, measured: list[Choice]) -> None:
    preflight(Command((*AUTO, f"hydra.run.dir={tmp_path / 'run'}"), False, False))
    assert measured == []
