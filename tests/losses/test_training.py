"""Every loss from the command line: two steps by gradients and by a population, and an epoch that makes it smaller."""

import json
from pathlib import Path

import pytest
import torch
from loss_cases import COMMANDS
from rich.console import Console

from certtrain.cli.assembly.data import make_data, make_source
from certtrain.cli.assembly.network import make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import RunConfig, parse, plain
from certtrain.cli.job.job import Job
from certtrain.cli.job.preflight import check_parts
from certtrain.errors import ConfigError
from certtrain.gradients import Backprop
from certtrain.gradients.base import ALONE
from certtrain.networks import parameters
from certtrain.training.checkpoints import network_state
from certtrain.training.generation import Generation
from certtrain.training.metrics import JsonlLogger
from certtrain.training.shards import Shard

pytestmark = pytest.mark.usefixtures("no_report")

QUICK = ("trainer.log_every_n_steps=1", "certify.enabled=false", "model.widths=[16,12]", "trainer.accelerator=cpu")
METHODS = {
    "grad": ("method=grad", "relaxation=ibp", "schedule.eps={warmup: 0.02, ramp: 0.04, scale: 1.0}"),
    "deeppoly": ("method=grad", "relaxation=deeppoly"),
    "pgpe": ("method=pgpe", "relaxation=ibp", "pgpe.population_size=4", "pgpe.strategy=vmap"),
    "rgs": ("method=rgs", "relaxation=ibp", "rgs.samples=2", "rgs.strategy=vmap"),
}


def config(*overrides: str) -> RunConfig:
    (job,) = compose_jobs(Command((*QUICK, *overrides), False, False))
    return parse(plain(job))


def train(directory: Path, *overrides: str) -> list[dict]:
    directory.mkdir()
    logger = JsonlLogger(directory / "metrics.jsonl")
    Job(config(*overrides), directory, Console(quiet=True)).run([logger])
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("teacher") / "run"
    train(directory, "loss=natural", "method=grad", "relaxation=ibp", "trainer.max_steps=2")
    return directory / "checkpoints" / "last.ckpt"


TAUGHT = ("loss=distillation", "loss=feature_distillation", "loss=ad_cert")


def command(name: str, teacher: Path) -> tuple[str, ...]:
    own = COMMANDS[name]
    return (*own, f"loss.teacher='{teacher}'") if own[0] in TAUGHT else own


# Others than these have nothing of their own for tight bounds or vectorised derivatives.
EVERYWHERE = ("sabr", "taps", "staps", "loss_fusion", "exp_ibp")
RUNS = [(name, method) for name in COMMANDS for method in METHODS if method in ("grad", "pgpe") or name in EVERYWHERE]


@pytest.mark.parametrize(("name", "method"), RUNS)
def test_two_steps(tmp_path: Path, teacher: Path, name: str, method: str) -> None:
    overrides = (*METHODS[method], *command(name, teacher), "trainer.max_steps=2")
    check_parts(config(*overrides))
    rows = train(tmp_path / "run", *overrides)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 2
    assert all(torch.tensor([*losses, rows[-1]["val/loss"]]).isfinite())


@pytest.mark.parametrize("name", COMMANDS)
def test_an_epoch_makes_it_smaller(teacher: Path, name: str) -> None:
    """On digits, by plain gradients at the full radius; judged on images that are always the same."""
    chosen = config(*METHODS["deeppoly"], "relaxation=crown_ibp", "eps=0.03", *command(name, teacher))
    data = make_data(chosen)
    data.setup()
    torch.manual_seed(0)
    network, graph = make_network(chosen, make_source(chosen))
    objective = make_training(chosen, network, graph).objective
    optimizer = torch.optim.Adam(network.parameters(), 0.005)
    batches = [(inputs, labels) for inputs, labels, *_ in data.train_dataloader()]
    params = parameters(network)

    def loss_on(batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        generation = Generation.at(graph, objective, number, 0.0)
        return generation.loss(Shard.of(batch, ALONE), params, {}, Backprop())(params)

    first = loss_on(batches[0], 0).item()
    for number, batch in enumerate(batches):
        optimizer.zero_grad()
        loss_on(batch, number).backward()
        optimizer.step()
    assert loss_on(batches[0], 0).item() < 0.9 * first


BAD = {
    ("loss=sabr", "loss.subselection_ratio=2.0"): "loss.subselection_ratio must be a number > 0 and <= 1, got 2.0",
    ("loss=sabr", "loss.attack.eps_factor=2.0"): "loss.attack.eps_factor must be 1 for sabr",
    ("loss=taps", "model.widths=[8]"): "loss.split: there is no activation -2",
    ("loss=taps", "loss.split=nowhere"): "loss.split: there is no layer 'nowhere'",
    ("loss=distillation",): "loss.teacher: name the checkpoint of a teacher",
    ("loss=distillation", "loss.teacher=nothing.ckpt"): "loss.teacher: no checkpoint at nothing.ckpt",
    (
        "loss=feature_distillation",
        "loss.layer=nowhere",
        "loss.teacher=TEACHER",
    ): "loss.layer: there is no layer 'nowhere'",
    ("loss=ad_cert",): "loss.teacher: name the checkpoint of a teacher",
    ("loss=optimised_slopes",): "loss=optimised_slopes chooses lower slopes of lines: take relaxation=crown_ibp or",
    ("loss=adv_ibp", "trainer.accumulate=2"): "loss: it is one of whole batches, which nothing may divide",
    ("loss=feature_distillation", "loss@loss.base=adv_ibp", "trainer.accumulate=2"): "loss: it is one of whole batches",
    ("loss=pgd", "loss.attack.stepps=2"): "loss",
    ("loss=pgd", "loss.attack.steps=-1"): "loss.attack: steps and restarts must be whole numbers",
}


@pytest.mark.parametrize("overrides", BAD)
def test_what_cannot_run_is_one_line_before_the_run(overrides: tuple[str, ...], teacher: Path) -> None:
    named = [word.replace("TEACHER", f"'{teacher}'") for word in overrides]
    with pytest.raises(ConfigError, match=BAD[overrides]) as found:
        check_parts(config("method=grad", "relaxation=ibp", *named))
    assert "\n" not in str(found.value)


def test_a_teacher_of_another_architecture_is_one_line(teacher: Path) -> None:
    with pytest.raises(ConfigError, match="loss.teacher has another architecture: '.*' must be"):
        check_parts(config("model.widths=[9,9]", "loss=distillation", f"loss.teacher='{teacher}'"))


def test_a_teacher_that_is_no_number_is_one_line(teacher: Path, tmp_path: Path) -> None:
    state = network_state(teacher)
    name = next(iter(state))
    torch.save({**state, name: state[name] * float("nan")}, tmp_path / "broken.pt")
    with pytest.raises(ConfigError, match=f"loss.teacher: .*broken.pt: {name} holds numbers that are not finite"):
        check_parts(config("loss=distillation", f"loss.teacher='{tmp_path / 'broken.pt'}'"))


def test_the_ramp_of_crown_ibp_is_that_of_eps() -> None:
    chosen = config("loss=crown_ibp", "relaxation=crown_ibp", "schedule.eps={warmup: 2, ramp: 4, scale: 1.0}")
    network, graph = make_network(chosen, make_source(chosen))
    training = make_training(chosen, network, graph)
    inputs, labels = torch.rand(2, *graph.input_shape), torch.tensor([0, 1])

    def beta(epoch: float) -> float:
        problem = Generation.at(graph, training.objective, 0, epoch).problem(inputs, labels)
        return training.objective.loss.beta(problem)  # type: ignore[attr-defined, no-any-return]

    assert [beta(epoch) for epoch in (0.0, 2.0, 3.0, 6.0, 9.0)] == [1.0, 1.0, 0.75, 0.0, 0.0]
