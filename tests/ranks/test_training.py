"""Runs on several ranks end where a run of one process ends, and notice when they do not."""

import json
from pathlib import Path

import pytest
import rank_jobs
import torch

from certtrain.gradients.distributed import PeerLost
from certtrain.training.replicas import RanksDiffer, fingerprint

# An epoch of digits has 20 batches. 10 pairs: uneven shares on 4 ranks.
# All of eps at once: at the foot of the ramp bounds hardly count.
COMMON = ("relaxation=ibp", "trainer.log_every_n_steps=1", "schedule.eps.warmup=0", "schedule.eps.ramp=0")
# All of what a population says: shrunk, a fault in it would hardly show.
PGPE = (*COMMON, "pgpe.population_size=20", "pgpe.strategy=vmap", "pgpe.shrinkage=none")
PLAIN = (*PGPE, "pgpe.control_variate=none")
GRAD = ("method=grad", *COMMON)
STEPS = 20


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory):
    """The checkpoint and the metrics of one process."""
    done: dict[tuple[str, ...], tuple[dict, list[dict]]] = {}

    def run(*overrides: str) -> tuple[dict, list[dict]]:
        if overrides not in done:
            directory = tmp_path_factory.mktemp("alone") / "run"
            done[overrides] = outcome(1, directory, *overrides)[:2]
        return done[overrides]

    return run


def outcome(size: int, directory: Path, *overrides: str) -> tuple[dict, list[dict], list[dict]]:
    """The last checkpoint, the metrics, and every rank's weights."""
    weights = rank_jobs.on_ranks(size, rank_jobs.train, directory, overrides)
    for answer in weights:
        if isinstance(answer, Exception):
            raise answer
    checkpoint = torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return checkpoint, rows, weights


def compare(size: int, alone, directory: Path, *overrides: str, steps: int = STEPS, layout: tuple = ()) -> None:
    overrides = (*overrides, f"trainer.max_steps={steps}")
    expected, expected_rows = alone(*overrides)
    ddp = ("trainer=ddp", f"trainer.devices={size}", *layout)
    found, rows, weights = outcome(size, directory, *overrides, *ddp)
    assert found["global_step"] == expected["global_step"] == steps, "one wrapped optimizer step per generation"
    for name, tensor in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], tensor, atol=1e-5, rtol=0)
    for other in weights[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in weights[0].items())
    # Every validation image counts once, so the fractions are the same.
    for key in ("val/natural_accuracy", "val/certified_accuracy"):
        assert [r[key] for r in rows if key in r] == pytest.approx([r[key] for r in expected_rows if key in r])
    losses = [[r["train/loss"] for r in some if "train/loss" in r] for some in (rows, expected_rows)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(losses[0]) == steps, "one row per generation, written by one rank"
    assert sorted(path.name for path in directory.iterdir() if path.name not in ("report.html", "curves.png")) == [
        "checkpoints",
        "metrics.jsonl",
        "summary.json",
    ]


@pytest.mark.parametrize("size", [2, 4])
def test_a_population_on_ranks_trains_the_same_network(size: int, alone, tmp_path: Path) -> None:
    compare(size, alone, tmp_path / "run", *PLAIN)


@pytest.mark.parametrize("method", [PGPE, PLAIN], ids=["control_variate", "plain"])
def test_the_first_update_is_the_same(alone, tmp_path: Path, method: tuple[str, ...]) -> None:
    """Plain gradient descent, so that a checkpoint shows the gradient itself."""
    plain = (*method, "optimizer=sgd", "optimizer.lr=1.0", "optimizer.momentum=0.0", "optimizer.clip_norm=1.0")
    overrides = (*plain, "trainer.max_steps=1", "pgpe.sigma=0.5")
    expected, _ = alone(*overrides)
    found, _, _ = outcome(4, tmp_path / "run", *overrides, "trainer=ddp", "trainer.devices=4")
    for name, tensor in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], tensor, atol=1e-6, rtol=0)


def test_groups_that_split_the_batch_train_the_same_network(alone, tmp_path: Path) -> None:
    compare(4, alone, tmp_path / "run", *PGPE, layout=("pgpe.parallel=hybrid", "pgpe.groups=2"))


@pytest.mark.parametrize("size", [2, 4])
def test_plain_gradients_are_data_parallel(size: int, alone, tmp_path: Path) -> None:
    compare(size, alone, tmp_path / "run", *GRAD, "data.test_batch_size=50")


def test_mean_gradients_at_perturbed_weights_are_data_parallel(alone, tmp_path: Path) -> None:
    rgs = ("method=rgs", "rgs.samples=4", *COMMON)
    compare(2, alone, tmp_path / "run", *rgs, steps=5)


def test_a_warm_start_splits_the_batch_and_then_the_population(alone, tmp_path: Path) -> None:
    compare(2, alone, tmp_path / "run", *PGPE, "warm_start.epochs=1", "pgpe.batch_per_generation=256", steps=23)


def test_ranks_that_were_stopped_go_on_to_the_same_end(alone, tmp_path: Path) -> None:
    overrides = (*PGPE, "trainer=ddp", "trainer.max_steps=27")
    assert rank_jobs.on_ranks(2, rank_jobs.train_until_told, tmp_path / "run", overrides) == [75, 75]
    stopped = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 23 <= stopped <= 24
    found, rows, _ = outcome(2, tmp_path / "run", *overrides)
    expected, expected_rows, _ = outcome(2, tmp_path / "other", *overrides)
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor)
    steps = [[row["step"] for row in some if "train/loss" in row] for some in (rows, expected_rows)]
    assert steps[0] == steps[1] == list(range(27))


def test_a_batch_smaller_than_the_ranks(alone, tmp_path: Path) -> None:
    compare(4, alone, tmp_path / "run", *GRAD, "data.batch_size=3", "data.validation=0", steps=5)


def test_batch_norm_sees_the_whole_batch(alone, tmp_path: Path) -> None:
    model = ("model=cnn7", "model.convolutions=[[4,3,2,1]]", "model.widths=[8]")
    # Not Adam: the bias before a batch norm has gradient 0, and Adam makes whole steps of its rounding errors.
    compare(2, alone, tmp_path / "run", *GRAD, *model, "optimizer=sgd", "optimizer.lr=0.1", steps=5)


@pytest.mark.parametrize(("control_variate", "losses", "gradients"), [("none", 20, 1), ("gradient", 30, 2)])
def test_what_is_exchanged_is_counted_and_logged_once(
    tmp_path: Path, control_variate: str, losses: int, gradients: int
) -> None:
    """A control variate is one more gradient, and tells one more number of each pair."""
    overrides = (*PGPE, f"pgpe.control_variate={control_variate}", "trainer.max_steps=2", "trainer=ddp")
    checkpoint, rows, _ = outcome(2, tmp_path / "run", *overrides)
    (row,) = [r for r in rows if "ranks" in r]
    # A sum for each of six tensors, of which signal-to-noise and shrinkage are made, and one for a learned sigma.
    numbers = gradients * parameters(checkpoint) + 6 + 1
    assert (row["ranks"], row["communication/losses"], row["communication/gradient_numbers"]) == (2, losses, numbers)


def parameters(checkpoint: dict) -> int:
    """Numbers of the network's state but for those of normalisation, which are not sent."""
    state = checkpoint["state_dict"]
    return sum(v.numel() for k, v in state.items() if k.startswith("network.") and not k.endswith((".mean", ".std")))


def test_the_first_ranks_choice_of_a_strategy_is_everyones(tmp_path: Path) -> None:
    auto = ("relaxation=ibp", "pgpe.population_size=4", "pgpe.strategy=auto", "trainer.max_steps=2", "trainer=ddp")
    checkpoint, rows, _ = outcome(2, tmp_path / "run", *auto)
    assert checkpoint["population_strategy"] in ("vmap", "loop")
    assert len([r for r in rows if "population/loop_seconds" in r]) == 1


def test_ranks_that_drift_apart_stop_the_run(tmp_path: Path) -> None:
    overrides = (*PGPE, "trainer=ddp", "trainer.max_epochs=3")
    answers = rank_jobs.on_ranks(2, rank_jobs.train_with_a_rank_that_drifts, tmp_path / "run", overrides)
    for answer in answers:
        assert isinstance(answer, RanksDiffer), answer
        assert "epoch 1: the parameters of rank 1 differ from those of rank 0" in str(answer)
        assert "\n" not in str(answer)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == STEPS, "the checkpoint of the last epoch that was good"


def test_a_rank_that_is_gone_is_noticed(tmp_path: Path) -> None:
    overrides = (*PGPE, "trainer=ddp")
    first, second = rank_jobs.on_ranks(2, rank_jobs.train_with_a_rank_that_dies, tmp_path / "run", overrides)
    assert second is None
    assert isinstance(first, PeerLost)
    assert str(first).startswith("rank 0 stops: another rank ended or does not answer")
    assert "\n" not in str(first)


def test_a_fingerprint_sees_every_bit() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    before = fingerprint(network)
    assert torch.equal(before, fingerprint(network))
    with torch.no_grad():
        network[0].weight[0, 0] = network[0].weight[0, 0].nextafter(torch.tensor(9.0))
    after = fingerprint(network)
    assert not torch.equal(before, after)
    network[1].running_mean[1] += 1
    assert not torch.equal(after, fingerprint(network))
