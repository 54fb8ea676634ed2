"""What makes certified training work, part by part."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from certtrain.bounds import build
from certtrain.cli.assembly.data import make_data
from certtrain.cli.assembly.network import make_network
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import RunConfig, parse, plain
from certtrain.cli.job.job import Job
from certtrain.errors import ConfigError
from certtrain.gradients.accumulation import accumulated
from certtrain.gradients.backprop import differentiate
from certtrain.losses import Problem, RobustCrossEntropy
from certtrain.losses.regularisers import shi_penalty
from certtrain.networks import parameters, trace
from certtrain.networks.initialisation import initialise
from certtrain.networks.statistics import batch_statistics, mean_statistics
from certtrain.testing.losses import problem_of
from certtrain.testing.networks import subjects
from certtrain.training.average import Ema, Moment, NoAverage, Swa
from certtrain.training.checkpoints import load_network, network_state, unaveraged_state
from certtrain.training.metrics import JsonlLogger

pytestmark = pytest.mark.usefixtures("no_report")

NORM = ("model=cnn7", "model.convolutions=[[2,3,2,1]]", "model.widths=[8]")
QUICK = ("method=grad", "relaxation=ibp", "data.batch_size=256", "certify.limit=20", "certify.verifiers=[ibp]")


def config(*overrides: str) -> RunConfig:
    (job,) = compose_jobs(Command((*QUICK, "certify.attack.steps=1", *overrides), False, False))
    return parse(plain(job))


def run(directory: Path, *overrides: str) -> tuple[dict, list[dict]]:
    directory.mkdir()
    logger = JsonlLogger(directory / "metrics.jsonl")
    record = Job(config(*overrides), directory, Console(quiet=True)).run([logger])
    return record, [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_shi_initialisation_has_its_variance_and_leaves_the_last_layer() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 64, 5), torch.nn.ReLU(), torch.nn.Linear(50, 400))
    last, bias = network[2].weight.detach().clone(), network[0].bias.detach().clone()
    initialise(network, "default")
    untouched = network[0].weight.detach().clone()
    initialise(network, "shi")
    assert float(network[0].weight.detach().std()) == pytest.approx(math.sqrt(2 * math.pi) / 100, rel=0.05)
    assert not torch.equal(network[0].weight, untouched)
    assert torch.equal(network[2].weight, last)
    assert torch.equal(network[0].bias, bias)


def test_shi_regularisers_by_hand() -> None:
    """z = (10 x, -10 x) on [0.4, 0.6]: ten times as wide, (0.5 - 0.1) / 0.5; an active and an inactive one balance."""
    first = torch.nn.Linear(1, 2, bias=False)
    first.weight.data = torch.tensor([[10.0], [-10.0]])
    network = torch.nn.Sequential(torch.nn.Flatten(), first, torch.nn.ReLU(), torch.nn.Linear(2, 2))
    graph = trace(network, (1, 1, 1))
    inputs, labels = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    problem = Problem.within(graph, build("ibp"), inputs, labels, 0.1, clip=None)
    torch.testing.assert_close(shi_penalty(problem, parameters(network)).detach(), torch.tensor([0.8]))
    one_sided = {**parameters(network), "1.weight": torch.tensor([[10.0], [10.0]])}
    # Two active neurons of the same mean: nothing balances the mean, and there is no variance to balance.
    torch.testing.assert_close(shi_penalty(problem, one_sided), torch.tensor([0.8 + 1.0]))


def test_shi_regularisers_fall_along_the_ramp_and_are_no_part_of_validation() -> None:
    subject = subjects()["fully_connected"]
    problem = problem_of(subject, build("ibp"))
    loss = RobustCrossEntropy(shi=0.4)
    middle = loss.penalty_of_bounds(problem, subject.params)
    torch.testing.assert_close(middle, 0.2 * shi_penalty(problem, subject.params).mean())
    assert loss.penalty_of_bounds(replace(problem, progress=1.0), subject.params) == 0
    torch.testing.assert_close(
        loss.per_image(problem, subject.params), RobustCrossEntropy().per_image(problem, subject.params)
    )


def test_parts_of_a_sum_give_its_value_and_its_gradient() -> None:
    params = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}
    parts = [lambda p: (p["a"] ** 2).sum() * p["b"], lambda p: p["b"].exp()]
    value, gradient = differentiate(accumulated(parts), params)
    whole, expected = differentiate(lambda p: sum(part(p) for part in parts), params)
    torch.testing.assert_close((value, gradient), (whole, expected))
    with torch.no_grad():
        torch.testing.assert_close(accumulated(parts)(params), whole)


@pytest.mark.parametrize("extra", [("loss=sabr", "loss.l1=1e-3"), NORM])
def test_a_batch_in_parts_is_the_same_step(tmp_path: Path, extra: tuple[str, ...]) -> None:
    """Batch norm's statistics are those of the whole batch, attacks those of each image, penalties count once."""
    steps = ("trainer.max_steps=3", "trainer.log_every_n_steps=1", "optimizer=sgd", "schedule.eps.warmup=0", *extra)
    _, whole = run(tmp_path / "whole", *steps)
    _, parts = run(tmp_path / "parts", *steps, "trainer.accumulate=3")
    for one, other in zip(whole[:3], parts[:3], strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


def test_recomputed_statistics_are_those_of_all_training_images(tmp_path: Path) -> None:
    chosen = config(*NORM, "batch_norm=recomputed", "trainer.max_steps=7")
    run(tmp_path / "run", *NORM, "batch_norm=recomputed", "trainer.max_steps=7")
    data = make_data(chosen)
    data.setup()
    network, graph = make_network(chosen, data.source)
    for name in ("best.ckpt", "last.ckpt"):
        load_network(network, tmp_path / "run" / "checkpoints" / name)
        batches = list(data.training_images())
        assert [len(x) for x in batches] == [256] * 5
        expected = mean_statistics(graph, parameters(network), batches)
        each = [batch_statistics(graph, parameters(network), x) for x in batches]
        for key, value in expected.items():
            torch.testing.assert_close(value, sum(found[key] for found in each).detach() / 5)
            torch.testing.assert_close(dict(network.named_buffers())[key], value)


def test_averages() -> None:
    late, early = Moment(0.9, True), Moment(0.5, True)
    assert NoAverage().share(late, 3) == 0
    assert [Ema(0.9).share(early, n) for n in (0, 1, 99)] == [1, 0.5, pytest.approx(0.1)]
    assert [Swa(0.75).share(late, n) for n in (0, 1, 3)] == [1, 0.5, 0.25]
    assert Swa(0.75).share(early, 0) == Swa(0.75).share(Moment(0.9, False), 0) == 0
    for wrong in (1, -0.1, True, "a"):
        with pytest.raises(ConfigError, match=r"average\.decay must be a number >= 0 and < 1"):
            Ema(wrong)


def test_the_average_is_certified_and_the_last_weights_beside_it(tmp_path: Path) -> None:
    plain = ("trainer.max_epochs=4", "scheduler=constant", "data.validation=0")
    record, _ = run(tmp_path / "run", *plain, "average=swa", "average.start=0.3")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    averaged, last = network_state(path), unaveraged_state(path)
    assert any(not torch.equal(averaged[key], last[key]) for key in last)
    assert set(record["unaveraged"]) == {"natural_accuracy", "attacked_accuracy", "certified_accuracy"}
    assert (tmp_path / "run" / "ledger-unaveraged.jsonl").is_file()
    plainly, _ = run(tmp_path / "plain", *plain)
    assert "unaveraged" not in plainly
    same = unaveraged_state(tmp_path / "plain" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(last[key], same[key]) for key in same), "averaging does not change the training"


def test_training_stops_without_progress_once_the_ramp_has_ended(tmp_path: Path) -> None:
    still = ("optimizer.lr=1e-9", "trainer.max_epochs=20", "stop.patience=2", "schedule.eps.warmup=0")
    _, rows = run(tmp_path / "run", *still, "schedule.eps.ramp=3", "certify.enabled=false")
    assert sum("val/loss" in row for row in rows) == 3 + 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method=pgpe", "trainer.accumulate=2"), "trainer.accumulate is for gradients .* method=pgpe"),
        (("method=rgs", "rgs.strategy=vmap", "trainer.accumulate=2"), "rgs.strategy=vmap takes all at once"),
        (("stop.patience=1", "data.validation=0"), "stop.patience needs validation"),
        (("init=xavier",), "init must be 'default' or 'shi'"),
    ],
)
def test_what_does_not_fit_together_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        config(*overrides)
    assert "\n" not in str(refusal.value)
