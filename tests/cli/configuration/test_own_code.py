"""Networks and losses of one's own, from the command line: what replaces what, what is passed, where they are found."""

import sys
from pathlib import Path

import pytest

from certtrain.__main__ import _look_here
from certtrain.cli.assembly.data import make_source
from certtrain.cli.assembly.network import make_network
from certtrain.cli.configuration.compose import compose_jobs
from certtrain.cli.configuration.own_targets import replace_targets
from certtrain.cli.configuration.recompose import compose_anew
from certtrain.cli.configuration.schema import parse, plain
from certtrain.cli.job.preflight import preflight
from certtrain.cli.rundir.code import find_code, remember_code
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.cli.rundir.recorded import parse_command
from certtrain.cli.rundir.resume import _named
from certtrain.earlier import completed
from certtrain.errors import ConfigError

NETWORKS = """
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.layers(x)


class Greedy(nn.Module):
    def __init__(self, depth, *, std):
        super().__init__()


def wants_all(**given):
    assert set(given) == {"input_shape", "num_classes", "mean", "std"}
    return Small(given["num_classes"])
"""
LOSS = """
from dataclasses import dataclass

from certtrain.losses import Loss


@dataclass(frozen=True)
class Zero(Loss):
    weight: float = 1.0

    def per_image(self, problem, params, prepared):
        return problem.cross_entropy(params, problem.inputs) * self.weight
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with code in it, as `python -m certtrain` finds it; what was imported is forgotten."""
    for name, text in (("ownnets", NETWORKS), ("ownloss", LOSS), ("unready", "import not_there_at_all\n")):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    (tmp_path / "garbled.py").write_text("class (:\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    _look_here()
    yield tmp_path
    for name in ("ownnets", "ownloss", "unready", "garbled"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("typed", "composed"),
    [
        (["eps=0.1"], ["eps=0.1"]),
        (
            ["model._target_=a.B", "model.width=3", "modelling=1"],
            ["~model", "++model._target_=a.B", "++model.width=3", "modelling=1"],
        ),
        (["+loss._target_=a.B", "+loss.x=1"], ["~loss", "+loss._target_=a.B", "+loss.x=1"]),
        (["model=cnn3", "model._target_=a.B"], ["model=cnn3", "model._target_=a.B"]),
        (["model.width=3"], ["model.width=3"]),
        (["optimizer._target_=a.B"], ["optimizer._target_=a.B"]),
    ],
)
def test_a_target_replaces_the_choice_of_its_group(typed: list[str], composed: list[str]) -> None:
    assert list(replace_targets(typed)) == composed
    assert list(replace_targets(composed)) == composed


@pytest.mark.parametrize("experiment", [[], ["experiment=mnist_ibp", "data=digits"]])
def test_what_stands_in_the_configuration_is_the_target_and_what_was_typed(experiment: list[str]) -> None:
    typed = ["model._target_=ownnets.Small", "model.width=3", "loss._target_=ownloss.Zero", *experiment]
    node = compose_anew(typed)
    assert node["model"] == {"_target_": "ownnets.Small", "width": 3}
    assert node["loss"] == {"_target_": "ownloss.Zero"}
    assert completed(node)["loss"] == node["loss"]  # later keys of our losses are none of other people's
    swept = compose_jobs(parse_command(["-m", "model._target_=ownnets.Small", "model.width=3,4"]))
    assert [plain(job)["model"]["width"] for job in swept] == [3, 4]


def test_a_network_is_given_what_it_names(here: Path) -> None:
    for target in ("ownnets.Small", "ownnets.wants_all"):
        config = parse(compose_anew([f"model._target_={target}", "loss._target_=ownloss.Zero", "method=grad"]))
        network, graph = make_network(config, make_source(config))
        assert type(network).__name__ == "Small"
        assert graph.num_outputs == 10
    preflight(parse_command(["model._target_=ownnets.Small", "loss._target_=ownloss.Zero", "method=grad"]))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model._target_=ownnets.Greedy", "model: ownnets.Greedy needs 'depth': set model.depth=.* num_classes=10, "),
        (
            "model._target_=ownnets.Small model.widht=3",
            "has no argument 'widht' .*num_classes, width; did you mean w",
        ),
        ("model._target_=ownnets.Smal", "there is no ownnets.Smal; did you mean ownnets.Small"),
        ("model._target_=ownets.Small", "no module 'ownets' in the current directory .*, on PYTHONPATH or installed"),
        ("model._target_=unready.A", "'unready' cannot be imported: .*not_there_at_all.*unready.py, line 1"),
        ("model._target_=garbled.A", "'garbled' cannot be imported: SyntaxError: .*garbled.py"),
        (
            "model._target_=ownnets.Small model.width=abc",
            r"model: ownnets.Small\(width='abc'\) failed: TypeError: .*ownnets.py, line 8",
        ),
        ("loss._target_=ownloss.Zero loss.l1=1", "loss: ownloss.Zero has no argument 'l1'"),
        ("loss._target_=ownnets.Small", "loss: ownnets.Small needs 'num_classes'"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(here: Path, typed: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        preflight(parse_command([*typed.split(), "method=grad"]))
    assert "\n" not in str(caught.value)


def test_the_code_of_a_run_is_found_again_and_known_when_it_has_changed(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = tmp_path_factory.mktemp("run")
    remember_code(run, {"model": {"_target_": "ownnets.Small"}, "optimizer": {"_target_": "torch.optim.Adam"}})
    elsewhere = [entry for entry in sys.path if entry != str(here)]
    monkeypatch.setattr(sys, "path", [*elsewhere])
    assert find_code(run) == []
    assert sys.path == [*elsewhere, str(here)]
    monkeypatch.setattr(sys, "path", [*elsewhere])
    RunDirectory(run).write_configuration({"eps": 0.1})
    assert _named(run).path == run  # resume=RUN
    assert sys.path == [*elsewhere, str(here)]
    (here / "ownnets.py").write_text(NETWORKS + "\n# another\n", encoding="utf-8")
    assert [str(here / "ownnets.py") in line for line in find_code(run)] == [True]
    (run / "code.json").write_text("[1]", encoding="utf-8")
    assert find_code(run) == []


def test_a_run_of_certtrain_alone_remembers_no_code(tmp_path: Path) -> None:
    remember_code(tmp_path, compose_anew([]))
    assert not list(tmp_path.iterdir())
