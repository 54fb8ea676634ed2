"""Records say which run they are of: no two different ones have the same title, and none needs another file."""

import json
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
from report.runs import run

from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import Node, plain
from certtrain.report.collect_read import read_run
from certtrain.report.facts import facts
from certtrain.report.identity import identify, named
from certtrain.report.origin import command_line, commit, hardware, read_origin, record_start
from certtrain.report.page import write_report
from certtrain.report.rows import title


def composed(*overrides: str) -> Node:
    (job,) = compose_jobs(Command(overrides, False, False))
    return plain(job)


def titled(*overrides: str) -> str:
    node = composed(*overrides)
    return title(identify(node) | {"data": {"name": node["data"]["name"]}})


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "digits, mlp: trained with robust_ce on deeppoly, pgpe, eps 0.05, seed 0"),
        (
            ("loss=sabr", "relaxation=ibp", "method=grad", "model.widths=[16]", "seed=3"),
            "digits, mlp (widths=[16]): trained with sabr on ibp, grad, eps 0.05, seed 3",
        ),
        (
            ("loss=sabr", "loss.subselection_ratio=0.2", "loss.attack.steps=1", "relaxation=hbox"),
            "digits, mlp: trained with sabr (attack.steps=1, subselection_ratio=0.2) on hbox, pgpe, eps 0.05, seed 0",
        ),
        (("loss=pgd", "method=grad"), "digits, mlp: trained with pgd, grad, eps 0.05, seed 0"),
        (
            (
                "pgpe.sigma=0.01",
                "pgpe/sigma_rule=learned",
                "pgpe.strategy=loop",
                "data=mnist",
                "data.path=x",
                "model=cnn7",
            ),
            "mnist, cnn7: trained with robust_ce on deeppoly, pgpe (sigma=0.01, sigma_rule=learned)",
        ),
        (
            ("model=paradox_fc", "method=rgs", "rgs.samples=2"),
            "digits, paradox_fc: trained with robust_ce on deeppoly, rgs",
        ),
        (
            ("loss=distillation", "loss@loss.base=sabr", "loss.teacher=x"),
            "distillation (base=sabr, teacher=x) on deeppoly",
        ),
        (("experiment=ctbench_mnist_0.1_sabr", "data.path=x"), "mnist, cnn7: trained with sabr (attack.steps=5"),
    ],
)
def test_a_title_names_every_part_and_what_sets_it_apart(overrides: tuple[str, ...], expected: str) -> None:
    assert expected in titled(*overrides)
    assert "strategy" not in titled(*overrides)


def test_different_losses_never_have_the_same_title() -> None:
    """Also those that differ in one option, in the end of a long value, or are somebody's own."""
    long = "outputs/2026-01-01/00-00-00/checkpoints/"
    losses = [
        *([f"loss={name}"] for name in ("natural", "pgd", "trades", "robust_ce", "sabr", "taps", "staps", "mtl_ibp")),
        *(["loss=sabr", f"loss.subselection_ratio={ratio}"] for ratio in (0.1, 0.10000000001)),
        *(["loss=distillation", f"loss.teacher={long}{name}.ckpt"] for name in ("best", "last")),
    ]
    records = [identify(composed(*loss)) for loss in losses]
    own = [{**records[0], **identify({"loss": {"_target_": name, "x": 1}})} for name in ("a.Mine", "b.Mine")]
    for one, other in combinations([*records, *own], 2):
        assert title(one) != title(other)


def test_what_an_older_or_a_foreign_record_does_not_say_is_left_out() -> None:
    assert title({}) == "trained with unknown relaxation, unknown method, eps unknown"
    onnx = {"model": "net.onnx", "eps": 0.1, "seed": 0, "data": {"name": "digits"}}
    assert title(onnx).startswith("digits, net.onnx: trained with unknown relaxation, unknown method, eps 0.1")
    assert title({"eps": 0.1, "trained_eps": 0.05}).endswith("eps 0.05, certified at eps 0.1")
    assert named({"loss": "sabr"}, "loss") == "sabr"
    assert list(facts({})) == []


def test_the_command_of_a_sweeps_job_is_what_one_would_type() -> None:
    given = ["hydra.mode=RUN", "hydra.job.num=3", "hydra.run.dir='/a/b-1.2/3'", "model.widths=[8, 8]"]
    assert command_line(given) == "python -m certtrain hydra.run.dir=/a/b-1.2/3 'model.widths=[8, 8]'"
    assert "a b" in command_line(["hydra.run.dir='a b'"]), "quotes that are needed stay"


def test_the_first_command_is_kept_and_later_ones_stand_behind_it(tmp_path: Path) -> None:
    assert read_origin(tmp_path) == {}
    first, more = ["seed=1", "model.widths=[8, 8]"], "trainer.max_epochs=9"
    record_start(tmp_path, first, first)
    record_start(tmp_path, ["resume=here", more], [*first, more])
    origin = read_origin(tmp_path)
    assert origin["command"] == "python -m certtrain seed=1 'model.widths=[8, 8]'"
    assert origin["overrides"] == [*first, more], "what it is told by now, whoever typed it"
    assert [start["command"] for start in origin["continued"]] == [f"python -m certtrain resume=here {more}"]
    (tmp_path / "origin.json").write_text("{")
    assert read_origin(tmp_path) == {}


def test_the_commit_is_that_of_the_code_and_says_when_it_was_changed(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        own = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        return subprocess.run(["git", *own, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    package = tmp_path / "venv"
    package.mkdir()
    assert commit(tmp_path) is None
    git("init")
    (tmp_path / "file.py").write_text("1")
    git("add", "file.py")
    git("commit", "-m", "first")
    git("tag", "v1")
    head = git("rev-parse", "HEAD").strip()
    assert commit(tmp_path) == head
    (tmp_path / "unknown.py").write_text("1")
    assert commit(tmp_path) == head, "a file that git does not know is none of the code"
    (tmp_path / "file.py").write_text("2")
    assert commit(tmp_path) == f"{head}-dirty"
    assert commit(package) is None, "a package that is installed somewhere in a checkout is not of its commit"


def test_facts_are_words(tmp_path: Path) -> None:
    record = {
        "data": {"name": "digits", "train_images": 1437, "test_images": 360, "content": "0123"},
        **identify(composed("loss=sabr", "eps=0.1")),
        "command": "python -m certtrain loss=sabr",
        "overrides": ["loss=sabr", "eps=0.1"],
        "commit": "abc-dirty",
        "hardware": {"cpu": "Some CPU", "cores": 2, "threads": 1, "gpus": ["H100", "H100"]},
        "versions": {"torch": "2.5", "auto_LiRPA": None},
    }
    found = dict(facts(record))
    assert found["data"] == "digits, 1,437 train and 360 test images, content 0123"
    assert (found["loss"], found["network"], found["gradient estimator"]) == ("sabr", "mlp", "pgpe")
    assert found["keys that were set"] == "loss=sabr eps=0.1"
    assert found["hardware"] == "Some CPU, 2 cores, 1 thread, 2 x H100"
    assert (found["commit"], found["versions"]) == ("abc-dirty", "torch 2.5")
    assert set(hardware()) == {"cpu", "cores", "threads", "gpus"}


def test_a_summary_needs_no_configuration_beside_it(tmp_path: Path) -> None:
    beside = run(tmp_path / "a")
    alone = Path(shutil.copytree(beside, tmp_path / "b"))
    record = json.loads((alone / "summary.json").read_text())
    config = composed("relaxation=ibp", "method=grad")
    told = {"config": config, **identify(config), "data": {**record["data"], "name": "digits"}}
    (alone / "config.yaml").unlink()
    (alone / "summary.json").write_text(json.dumps(record | told))
    assert read_run(alone).setting["relaxation.name"] == "ibp"
    page = write_report(alone).read_text(encoding="utf-8")
    assert "Digits, mlp: trained with robust_ce on ibp, grad, eps 0.05, seed 0" in page
    assert "schedule.eps.ramp" in page
