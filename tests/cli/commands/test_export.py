"""`export`: what is written is the run's own question, read back bit by bit, and answered alike by other tools."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from onnx_models import by_onnxruntime

import certtrain
from certtrain.certify import Verdict, read_ledger
from certtrain.certify.ledger import Ledger
from certtrain.certify.properties import Property
from certtrain.certify.shard import Shard
from certtrain.cli.assembly.data import make_source
from certtrain.cli.assembly.network import make_network
from certtrain.cli.commands.export import export_command
from certtrain.cli.configuration.schema import parse
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.data.batches import as_float
from certtrain.errors import CerttrainError, ConfigError
from certtrain.training.checkpoints import load_network

QUICK = ["method=grad", "relaxation=ibp", "trainer.max_epochs=1", "certify.enabled=false", "certify.limit=7"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "certtrain", *QUICK, "eps=0.07", "certify.timeout_s=12.5", "hydra.run.dir=run"]
    environment = {**os.environ, "WANDB_SILENT": "true"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def trained(run: Path, checkpoint: Path | None = None) -> torch.nn.Module:
    config = parse(RunDirectory(run).configuration())
    network, _ = make_network(config, make_source(config))
    load_network(network, checkpoint or run / "checkpoints" / "best.ckpt")
    return network.eval()


def test_network_properties_and_instances_are_the_runs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    export_command([str(run), "--format", "vnnlib", "--out", str(tmp_path), "--limit", "4"])
    assert "network and 4 properties" in capsys.readouterr().out
    source = make_source(parse(RunDirectory(run).configuration()))
    test = source.load().test
    with (tmp_path / "instances.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["onnx/network.onnx", f"vnnlib/image_{i}.vnnlib", "12.5"] for i in range(4)]
    network = certtrain.networks.from_onnx(tmp_path / rows[0][0])
    for image, label, (_, path, _) in zip(as_float(test.inputs[:4]), test.labels[:4].tolist(), rows, strict=True):
        read = certtrain.read_vnnlib(tmp_path / path, network.input_shape)
        assert read == Property.robust(image, label, 0.07, 10)
        assert read.violated(image, network(image[None])[0]) is (trained(run)(image[None]).argmax().item() != label)


def test_the_network_alone_with_its_normalisation(run: Path, tmp_path: Path):
    export_command([str(run), "--format=onnx", "--out", str(tmp_path / "a" / "b")])
    (path,) = (p for p in tmp_path.rglob("*") if p.is_file())
    assert path == tmp_path / "a" / "b" / "onnx" / "network.onnx"
    x = torch.rand(5, 1, 8, 8)
    back = certtrain.networks.from_onnx(path)
    torch.testing.assert_close(back(x), trained(run)(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_onnxruntime(path, x, back.onnx_shape), trained(run)(x), rtol=1e-5, atol=1e-5)


def test_it_goes_into_the_run_directory_and_takes_its_limit(run: Path, tmp_path: Path):
    copy = shutil.copytree(run, tmp_path / "copy")
    verdict = Verdict(3, 1, 0, "misclassified", None, None, 0.1, image="0" * 16)
    Ledger(copy / "ledger.jsonl", {"eps": 0.07}, Shard(1, 2)).append([verdict])
    export_command([str(copy)])
    assert read_ledger(copy / "export" / "ledger.jsonl") == [verdict]
    assert len((copy / "export" / "instances.csv").read_text().splitlines()) == 7
    assert len(list((copy / "export" / "vnnlib").iterdir())) == 7


def test_the_weights_that_the_run_judged_are_written(run: Path, tmp_path: Path):
    """Which summary.json says; without it the best ones, and the last ones where none were validated."""
    copy = RunDirectory(Path(shutil.copytree(run, tmp_path / "copy")))
    best, last = copy.checkpoints / "best.ckpt", copy.checkpoints / "last.ckpt"
    assert copy.judged == best
    summary = json.loads((copy.path / "summary.json").read_text())
    (copy.path / "summary.json").write_text(json.dumps(summary | {"checkpoint": "last.ckpt"}))
    assert copy.judged == last
    export_command([str(copy.path), "--format=onnx"])
    x = torch.rand(5, 1, 8, 8)
    written = certtrain.networks.from_onnx(copy.path / "export" / "onnx" / "network.onnx")
    torch.testing.assert_close(written(x), trained(copy.path, last)(x), rtol=1e-5, atol=1e-5)
    last.rename(tmp_path / "away")
    with pytest.raises(CerttrainError, match=r"last\.ckpt, which the run has judged, is gone"):
        export_command([str(copy.path), "--format=onnx"])
    (copy.path / "summary.json").unlink()
    assert copy.judged == best
    (tmp_path / "away").rename(last)
    best.unlink()
    assert copy.judged == last
    last.unlink()
    with pytest.raises(CerttrainError, match="holds no checkpoint: the run has not got so far"):
        export_command([str(copy.path), "--format=onnx"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "export: nowhere is no run directory"),
        (["RUN", "--format=pb"], "export: argument --format: invalid choice: 'pb'"),
        (["RUN", "--limit=0"], "export: --limit must be at least 1, got 0"),
        ([], "export: the following arguments are required: run; see python -m certtrain export --help"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(run: Path, tmp_path: Path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        export_command([str(run) if word == "RUN" else word for word in arguments])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert not (run / "export").exists()


def test_without_onnx_one_line_says_what_to_install(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r'pip install "certtrain\[onnx\]"'):
        export_command([str(run), "--out", str(tmp_path / "out")])
