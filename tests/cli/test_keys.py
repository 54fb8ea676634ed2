"""Every key that is declared is read, on objects of the class that declares it, while runs do what they do."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from config_reads import Reads, options_in, uses
from hydra.types import HydraContext
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from pydantic import model_validator
from rich.console import Console

from certtrain._paths import config_dir
from certtrain.bounds.registry import NATIVE
from certtrain.cli.assembly import bounds, estimator
from certtrain.cli.configuration import schema
from certtrain.cli.configuration.compose import Command, compose_jobs, hydra_for
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.configuration.sentences import GROUPS
from certtrain.cli.help.page import choices
from certtrain.cli.job.entry import run_in
from certtrain.cli.job.logs import run_loggers
from certtrain.cli.job.preflight import check_data, check_parts
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.cli.rundir.resume import find_place
from certtrain.data.source import Source
from certtrain.gradients import Layout
from certtrain.sweep.launcher import FreshProcesses
from certtrain.sweep.sweep import sweeping
from certtrain.training.module import CertifiedTraining

# Names that are read of other objects all over the code.
PLANTS = {"name": (str, "planted"), "steps": (int, 3), "sigma": (float, 0.5), "timeout_s": (float, 1.0)}
QUICK = ("model.widths=[8]", "relaxation=ibp", "trainer.max_steps=3", "pgpe.population_size=4", "trainer.devices=1")
SHORT = ("certify.limit=2", "certify.attack.steps=1", "certify.attack.restarts=1", "certify.verifiers=[ibp]")


def composed(*overrides: str) -> DictConfig:
    (job,) = compose_jobs(Command(overrides, False, False))
    return job


def run_and_go_on(reads: Reads, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one command does: preflight, training that a signal stops, and the same again to its end."""
    job = composed(*QUICK, *SHORT, f"hydra.run.dir='{directory / 'new'}'")
    config = parse(plain(job))
    find_place(job, reads.node(job))
    check_parts(config)
    check_data(config)
    directory.mkdir()
    RunDirectory(directory).write_configuration(plain(job))
    with monkeypatch.context() as patch:
        patch.setattr(CertifiedTraining, "on_train_batch_end", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as stop:
            run_in(directory, plain(job))
    assert stop.value.code == 75
    run_in(directory, plain(job))


def assemble_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conditional keys: other methods, several ranks."""
    monkeypatch.setattr(estimator, "Distributed", lambda layout, timeout_s: SimpleNamespace(layout=layout))
    for method in ("grad", "rgs"):
        estimator.make_estimator(parse(plain(composed(f"method={method}"))))
    bounds.make_attack(parse(plain(composed("certify/attack=ensemble"))))
    hybrid = parse(plain(composed("trainer=ddp", "pgpe.parallel=hybrid", "pgpe.groups=1")))
    layout = estimator.make_layout(hybrid)
    assert layout == Layout.hybrid(2, 1)
    estimator.make_ranks(hybrid, layout)


def log_to_the_web(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    directory.mkdir()
    node = plain(composed("logger=[wandb,csv,tensorboard]"))
    with run_loggers(parse(node), node, directory) as loggers:
        assert len(loggers) == 4


def sweep(reads: Reads, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher reads before it starts processes: for a single job, which is then not run."""
    reads.watch(monkeypatch, "certtrain.sweep.launcher")
    runner = SimpleNamespace(side_by_side=False, at_a_time=lambda jobs: 1, run=lambda jobs, sweep: None)
    command = Command((f"hydra.sweep.dir='{directory}'",), True, False)
    (job,) = compose_jobs(command)
    with sweeping(Console(quiet=True)), hydra_for(command) as app:
        launcher = FreshProcesses(runner)
        launcher.setup(hydra_context=HydraContext(app.config_loader, None), task_function=print, config=job)
        launcher.launch([], 0)


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reads]:
    """Of all that, with keys planted in every node that nothing reads."""
    found, root = Reads(schema.RunConfig, PLANTS), tmp_path_factory.mktemp("reads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema.run, "RunConfig", found.model)
        run_and_go_on(found, root / "run", patch)
        assemble_the_rest(patch)
        log_to_the_web(root / "web", patch)
        sweep(found, root / "sweep", patch)
    return found


def test_every_key_is_read_somewhere(reads: Reads) -> None:
    assert reads.unread - reads.planted == set()


def test_a_key_that_nothing_reads_is_found_whatever_its_name(reads: Reads) -> None:
    """Also where another node has a key of that name that is read, as certify.attack.steps is."""
    assert reads.planted & reads.unread == reads.planted
    assert {"checkpoint.steps", "certify.name", "rgs.timeout_s", "steps"} <= reads.planted
    assert not {"data.name", "certify.attack.steps", "pgpe.sigma", "certify.timeout_s"} & (reads.planted | reads.unread)


class Inner(schema.Strict):
    """A node."""

    steps: int
    name: str


class Outer(schema.Strict):
    """A validator reads everything, a property one key."""

    name: str
    inner: Inner
    other: Inner | None = None

    @property
    def count(self) -> int:
        return self.inner.steps

    @model_validator(mode="after")
    def _looks(self) -> "Outer":
        assert self.name
        assert self.inner.name
        return self


NODE = {"name": "a", "inner": {"steps": 1, "name": "b"}, "other": {"steps": 2, "name": "c"}}


def test_what_validators_look_at_is_not_read() -> None:
    found = Reads(Outer)
    config = found.model.model_validate(NODE)
    assert found.unread == {"name", "inner", "inner.steps", "inner.name", "other", "other.steps", "other.name"}
    assert (config.count, config.name) == (1, "a")
    assert found.unread == {"inner.name", "other", "other.steps", "other.name"}
    assert config.model_dump() == NODE
    assert found.unread == {"inner.name", "other", "other.steps", "other.name"}
    assert config.other.name == "c"
    assert found.unread == {"inner.name", "other.steps"}


def test_what_another_key_interpolates_is_read() -> None:
    found = Reads(Outer)
    node = found.node(OmegaConf.create({**NODE, "inner": {"steps": "${other.steps}", "name": "b"}}))
    assert found.found == {"other.steps"}
    assert node["name"] == "a"
    assert found.found == {"other.steps", "name"}


# What the rest asks a source of data for, through the interface of all sources.
OF_ALL_SOURCES = {field.name for field in fields(Source)}


def choice(group: str, name: str) -> dict[str, Any]:
    """What a file of conf/ says, but for the other files that it is made of."""
    node = OmegaConf.to_container(OmegaConf.load(config_dir() / group / f"{name}.yaml"))
    return {key: value for key, value in node.items() if key != "defaults"}


def passed_on() -> set[tuple[str, str]]:
    """Target and option, of every choice of every group."""
    nodes = [choice(group, name) for group in GROUPS for name in choices(config_dir() / group)]
    return {found for node in nodes for found in options_in(node) if found[0].startswith("certtrain.")}


def test_every_option_of_a_target_is_used() -> None:
    options = passed_on()
    assert {("certtrain.training.clipup.ClipUp", "max_speed"), ("certtrain.networks.mlp.MLP", "widths")} <= options
    for target, option in sorted(options):
        made = get_object(target)
        ours = isinstance(made, type) and issubclass(made, Source) and option in OF_ALL_SOURCES
        assert ours or uses(made, option), f"{target} does nothing with {option}"


def test_every_option_of_a_relaxation_is_used() -> None:
    for name, kind in NATIVE.items():
        for option in choice("relaxation", name).keys() - {"name", "backend"}:
            assert uses(kind, option), f"{name} does nothing with {option}"


@dataclass(frozen=True)
class Idle:
    """Checks an option, and has one that is read of something else."""

    rate: float
    shape: str
    end: float

    def __post_init__(self) -> None:
        assert self.rate > 0

    def work(self, other: "Idle") -> float:
        return self.end * len(other.shape)


def test_an_option_that_is_only_checked_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Idle, "__module__", "certtrain.idle")
    monkeypatch.setitem(sys.modules, "certtrain.idle", sys.modules[__name__])
    assert [option for option in ("rate", "shape", "end") if uses(Idle, option)] == ["end"]


def test_a_parameter_that_its_function_never_names_is_not_used() -> None:
    def scheduler(optimizer: object, gamma: float, end: float) -> float:
        return gamma

    assert [name for name in ("gamma", "end") if uses(scheduler, name)] == ["gamma"]
