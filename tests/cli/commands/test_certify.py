"""`certtrain certify`: other questions about what is trained already, beside the run and never mixed with it."""

import csv
import json
import sys
from pathlib import Path

import pytest
from pyarrow import parquet
from torch import nn

from certtrain.__main__ import main
from certtrain.certify import read_ledger
from certtrain.cli.commands.certify import certify_command
from certtrain.cli.commands.export import export_command
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import plain
from certtrain.cli.job.entry import run_in
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.errors import CerttrainError
from certtrain.networks import to_onnx
from certtrain.report.certifications import FOLDER
from certtrain.report.collect import collect

TRAINED = (
    *("method=grad", "relaxation=ibp", "model.widths=[16]", "trainer.max_steps=60", "eps=0.02"),
    *("certify.limit=12", "certify.verifiers=[ibp]", "certify.attack.steps=3", "certify.attack.restarts=1"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; every test adds certifications of its own."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    directory.mkdir()
    (composed,) = compose_jobs(Command(TRAINED, False, False))
    RunDirectory(directory).write_configuration(plain(composed))
    run_in(directory, plain(composed))
    return directory


def certify(run: Path, *words: str) -> list[Path]:
    """Runs the command; the folders that it added."""
    before = set((run / FOLDER).iterdir()) if (run / FOLDER).is_dir() else set()
    certify_command([str(run), *words])
    return sorted(set((run / FOLDER).iterdir()) - before)


def summary(directory: Path) -> dict:
    return json.loads((directory / "summary.json").read_text())


def test_another_radius_is_certified_beside_the_run(trained: Path) -> None:
    own = {name: (trained / name).read_bytes() for name in ("config.yaml", "ledger.jsonl", "summary.json")}
    (directory,) = certify(trained, "eps=0.03")
    record = summary(directory)
    assert (record["eps"], record["images"], record["cascade"]) == (0.03, 12, "all")
    assert (record["trained_eps"], record["train_seconds"]) == (0.02, None)
    assert list(record["certified_accuracy_by"]) == ["ibp"], "what is not said is as in the run"
    assert RunDirectory(directory).configuration()["eps"] == 0.03
    assert {name: (trained / name).read_bytes() for name in own} == own
    assert f"{FOLDER}/{directory.name}/report.html" in (trained / "report.html").read_text()
    assert "eps 0.02, certified at eps 0.03" in (directory / "report.html").read_text()


def test_the_weights_that_the_run_judged_are_judged(trained: Path) -> None:
    (directory,) = certify(trained, "certify.verifiers=[ibp,deeppoly]")
    there = {v.index: v for v in read_ledger(trained / "ledger.jsonl")}
    here = {v.index: v for v in read_ledger(directory / "ledger.jsonl")}
    assert {i: v.margins.get("ibp") for i, v in here.items()} == {i: v.margins.get("ibp") for i, v in there.items()}
    assert summary(trained)["checkpoint"] == summary(directory)["checkpoint"]


def test_a_list_of_radii_is_a_curve(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = certify(trained, "eps=[0.005,0.05]", "certify.cascade=first", "certify.verifiers=[ibp,crown_ibp]")
    (curve,), folders = [d for d in made if "curve" in d.name], [d for d in made if "curve" not in d.name]
    assert sorted(summary(directory)["eps"] for directory in folders) == [0.005, 0.05]
    with (curve / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["eps"]) for row in rows] == [0.005, 0.05]
    assert float(rows[0]["certified_accuracy"]) >= float(rows[1]["certified_accuracy"])
    assert (curve / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (curve / "curve.svg").read_text()
    assert "Accuracy over eps, certified afterwards" in (trained / "report.html").read_text()
    assert "settled by ibp, crown_ibp" in capsys.readouterr().out
    assert certify(trained, "eps=0.05", "certify.cascade=first", "certify.verifiers=[ibp,crown_ibp]") == []


def test_every_image_is_in_both_tables(trained: Path) -> None:
    (directory,) = certify(trained, "eps=0.3", "certify.verifiers=[ibp,deeppoly]")
    verdicts = sorted(read_ledger(directory / "ledger.jsonl"), key=lambda v: v.index)
    with (directory / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = parquet.read_table(directory / "images.parquet").to_pylist()
    for found in (rows, table):
        assert [int(row["index"]) for row in found] == [v.index for v in verdicts] == list(range(12))
        assert [row["status"] for row in found] == [v.status for v in verdicts]
    assert [row["margin_ibp"] for row in table] == [v.margins.get("ibp") for v in verdicts]
    broken = next(v for v in verdicts if v.status == "falsified")
    assert (directory / rows[broken.index]["counterexample"]).is_file()


def test_the_same_command_goes_on_where_it_stopped(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("eps=0.025", "certify.verifiers=[ibp,deeppoly]")
    (directory,) = certify(trained, *words)
    ledger = directory / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:5]) + lines[5][:20])
    for name in ("summary.json", "report.html", "images.csv"):
        (directory / name).unlink()
    capsys.readouterr()
    assert certify(trained, *words) == []
    assert "judged 5 of 12 images" in capsys.readouterr().out
    assert ledger.read_text().startswith("".join(lines[:5]))
    assert [json.loads(line)["status"] for line in ledger.read_text().splitlines()] == [
        json.loads(line)["status"] for line in lines
    ]
    assert summary(directory)["images"] == 12


def test_shards_are_put_together_by_the_last_one(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("eps=0.035", "certify.limit=7")
    (directory,) = certify(trained, *words, "certify.shard=0/2")
    assert "4 of 7 images are judged; other shards have the rest" in capsys.readouterr().out
    assert not (directory / "summary.json").exists()
    assert certify(trained, *words, "certify.shard=1/2") == []
    assert summary(directory)["images"] == 7
    assert {path.name for path in directory.glob("*.jsonl")} == {"ledger-0-of-2.jsonl", "ledger-1-of-2.jsonl"}
    assert sorted(v.index for v in read_ledger(directory / "ledger.jsonl")) == list(range(7))


def test_choices_of_groups_replace_what_was_recorded(trained: Path) -> None:
    (directory,) = certify(trained, "certify/attack=ensemble", "certify.attack.queries=5", "certify.limit=3")
    settings = json.loads((directory / "ledger.meta.json").read_text())
    assert "Square(queries=5" in str(settings["attack"])
    (default,) = certify(
        trained, "certify=default", "certify/attack=ensemble", "certify.limit=3", "certify.timeout_s=60"
    )
    node = RunDirectory(default).configuration()
    assert (node["certify"]["attack"]["steps"], len(node["certify"]["verifiers"])) == (40, 5)


def test_a_checkpoint_needs_a_model_and_does_not_say_what_trained_it(trained: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.ckpt"
    checkpoint.write_bytes((trained / "checkpoints" / "best.ckpt").read_bytes())
    with pytest.raises(CerttrainError, match="does not name its network: add model="):
        certify_command([str(checkpoint), "eps=0.02"])
    with pytest.raises(CerttrainError, match="belongs to another architecture"):
        certify_command([str(checkpoint), "model=cnn3", "eps=0.02"])
    assert not (tmp_path / FOLDER).exists()
    certify_command(
        [str(checkpoint), "model=mlp", "model.widths=[16]", "eps=0.02", "certify.limit=4", "certify.verifiers=[ibp]"]
    )
    (directory,) = (tmp_path / FOLDER).iterdir()
    record = summary(directory)
    assert (record["relaxation"], record["method"], record["images"]) == (None, None, 4)
    there, here = read_ledger(trained / "ledger.jsonl")[:4], read_ledger(directory / "ledger.jsonl")
    assert all(one.margins == pytest.approx(other.margins) for one, other in zip(here, there, strict=True))


def test_an_onnx_file_is_certified_like_the_run_that_it_comes_from(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    export_command([str(trained), "--format=onnx", "--out", str(tmp_path)])
    network = tmp_path / "onnx" / "network.onnx"
    with pytest.raises(CerttrainError, match="does not say what its inputs are: add data="):
        certify_command([str(network), "eps=0.02"])
    with pytest.raises(CerttrainError, match="is a network already: leave out model="):
        certify_command([str(network), "data=digits", "model=mlp"])
    certify_command([str(network), "data=digits", "eps=0.02", "certify.limit=6", "certify.verifiers=[ibp]"])
    (directory,) = (network.parent / FOLDER).iterdir()
    assert summary(directory)["method"] is None
    there, here = read_ledger(trained / "ledger.jsonl")[:6], read_ledger(directory / "ledger.jsonl")
    assert all(one.margins == pytest.approx(other.margins) for one, other in zip(there, here, strict=True))


@pytest.mark.parametrize("shape", [(64,), (8, 8)])
def test_images_are_reshaped_as_an_onnx_file_wants_them(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pytest.importorskip("onnx")
    network = tmp_path / "network.onnx"
    layers = [nn.Flatten(), nn.Linear(64, 10)]
    to_onnx(nn.Sequential(*layers), shape, network)
    certify_command([str(network), "data=digits", "certify.limit=2", "certify.verifiers=[ibp]"])
    to_onnx(nn.Sequential(nn.Linear(63, 10)), (63,), network)
    with pytest.raises(CerttrainError, match=r"reads inputs of shape \(63,\), the images of digits are \(1, 8, 8\)"):
        certify_command([str(network), "data=digits", "certify.limit=2"])
    to_onnx(nn.Sequential(*layers[:1], nn.Linear(64, 9)), shape, network)
    with pytest.raises(CerttrainError, match="has 9 outputs, digits 10 classes"):
        certify_command([str(network), "data=digits", "certify.limit=2"])


def test_a_checkpoint_of_a_run_is_certified_as_of_that_run(trained: Path) -> None:
    certify_command([str(trained / "checkpoints" / "last.ckpt"), "certify.limit=2"])
    found = [summary(path) for path in (trained / FOLDER).iterdir() if (path / "summary.json").is_file()]
    assert any(record["checkpoint"] == "last.ckpt" and record["relaxation"] == "ibp" for record in found)


def test_runs_of_before_there_were_cascades_can_be_certified(trained: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "checkpoints").mkdir(parents=True)
    (old / "checkpoints" / "best.ckpt").write_bytes((trained / "checkpoints" / "best.ckpt").read_bytes())
    node = RunDirectory(trained).configuration()
    del node["certify"]["cascade"], node["certify"]["attack"]["name"]
    RunDirectory(old).write_configuration(node)
    (directory,) = certify(old, "certify.cascade=first", "certify.limit=2")
    assert summary(directory)["cascade"] == "first"


def test_certifications_are_no_runs(trained: Path) -> None:
    certify(trained, "eps=0.045", "certify.limit=2")
    (group,) = collect([trained]).groups
    assert group.setting["eps"] == 0.02


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("optimizer.lr=1",),
            "'optimizer.lr=1': the run has decided this; a certification takes eps, clip,",
        ),
        (("model=cnn3",), "'model=cnn3': the run has decided this"),
        (("certify.verifers=[ibp]",), "unknown key 'certify.verifers'; did you mean certify.verifiers?"),
        (("certify.verifiers=[ibq]",), "unknown verifier 'ibq'"),
        (("certify.cascade=frist",), "certify.cascade must be 'all' or 'first', got 'frist'"),
        (("certify/attack=nonsense",), "unknown certify/attack 'nonsense': possible are ensemble, pgd"),
        (("certify.attack.queries=3",), "unknown key 'certify.attack.queries'"),
        (("eps=0.1,0.2",), "several radii are a list: eps=[0.05,0.1]"),
        (("eps=[]",), "is no list of radii"),
        (("eps=[a]",), "is no list of radii"),
        (("eps=[0.1,0.1]",), "names a radius twice"),
        (("eps=[0.1,-1]",), "eps must be greater than or equal to 0"),
        (("eps=[0.1",), "the value is no list"),
        (("eps=-1",), "eps must be greater than or equal to 0"),
        (("certify.shard=2/2",), "certify.shard must be RANK/RANKS"),
        (("certify.shard=a",), "certify.shard must be RANK/RANKS"),
        (("nonsense",), "'nonsense' is no key=value"),
        (("--nonsense",), "unrecognized arguments: --nonsense; see python -m certtrain certify --help"),
        (("data.path=/nowhere", "data=mnist"), "'/nowhere' is no folder"),
    ],
)
def test_bad_words_are_one_line_and_leave_nothing(
    trained: Path, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    before = sorted(trained.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["certtrain", "certify", str(trained), *words])
    assert main() == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert sorted(trained.rglob("*")) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no run directory, checkpoint or ONNX file"),
        (lambda path: path.mkdir(), "is no run directory: it has no config.yaml"),
        (lambda path: path.write_text("x"), "is no checkpoint that can be read"),
    ],
)
def test_bad_targets_are_one_line(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "target")
    with pytest.raises(CerttrainError, match=message) as refusal:
        certify_command([str(tmp_path / "target")])
    assert "\n" not in str(refusal.value)


def test_a_run_without_checkpoints_has_not_got_so_far(trained: Path, tmp_path: Path) -> None:
    RunDirectory(tmp_path).write_configuration(RunDirectory(trained).configuration())
    with pytest.raises(CerttrainError, match="holds no checkpoint: the run has not got so far"):
        certify_command([str(tmp_path)])
