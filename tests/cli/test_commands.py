"""The commands that people type, as they type them, in processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

QUICK = ["trainer.max_steps=3", "certify.limit=8", "certify.attack.steps=2", "certify.attack.restarts=1"]
FILES = [
    "config.yaml",
    "metrics.jsonl",
    "ledger.jsonl",
    "summary.json",
    "report.html",
    "curves.png",
    "checkpoints/last.ckpt",
    ".hydra/overrides.yaml",
]


def certtrain(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "certtrain", *arguments],
        cwd=cwd,
        env={**os.environ, "WANDB_SILENT": "true", **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def summary(directory: Path) -> dict:
    missing = [name for name in FILES if not (directory / name).exists()]
    assert not missing, f"{directory} lacks {missing}"
    return json.loads((directory / "summary.json").read_text())


def test_deeppoly_and_pgpe(tmp_path: Path) -> None:
    done = certtrain("relaxation=deeppoly", "pgpe.sigma=0.01", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("outputs/*/*")
    record = summary(run)
    assert (record["relaxation"], record["method"], record["eps"]) == ("deeppoly", "pgpe", 0.05)
    assert "certified by any (union)" in done.stdout
    assert done.stdout.count("\ntest: 360 images, 35 (2) to 37 (3) of 10 classes, 36 in 6 of them\n") == 1
    assert done.stdout.count("\n0 of 360 test images are also training images, bit by bit\n") == 1
    assert re.search(r"step 3/3  epoch 1/1  0 s left .* members/s", done.stdout)
    title = "digits, mlp: trained with robust_ce on deeppoly, pgpe (sigma=0.01), eps 0.05, seed 0"
    assert record["title"] == title
    assert f"{title}\n{run}\n" in done.stdout
    assert record["command"].startswith("python -m certtrain relaxation=deeppoly pgpe.sigma=0.01 ")
    assert record["overrides"][:2] == ["relaxation=deeppoly", "pgpe.sigma=0.01"]
    assert (record["loss"], record["model"], record["data"]["name"]) == ("robust_ce", "mlp", "digits")
    assert record["hardware"]["threads"] >= 1
    assert len((run / "ledger.jsonl").read_text().splitlines()) == 8


@pytest.mark.slow
def test_plain_gradients_and_a_directory_that_is_taken(tmp_path: Path) -> None:
    command = ["method=grad", "relaxation=ibp", "hydra.run.dir=mine", *QUICK]
    done = certtrain(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")}
    assert summary(tmp_path / "mine")["method"] == "grad"
    assert "members/s" not in done.stdout
    again = certtrain(*command, cwd=tmp_path)
    assert again.returncode == 0
    assert "mine has finished" in again.stdout
    for other, message in (
        (["seed=1"], "mine holds another run (seed is 0 there, 1 here): choose another hydra.run.dir"),
        (["resume=never"], "mine exists and is not empty: choose another hydra.run.dir"),
    ):
        refused = certtrain(*command, *other, cwd=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")} == before


@pytest.mark.slow
def test_a_finished_run_goes_on_to_more_and_is_forked(tmp_path: Path) -> None:
    """By its directory alone, which knows what it was told."""
    told = ["method=grad", "relaxation=ibp", "scheduler=constant", "trainer.max_epochs=1", *QUICK[1:]]
    assert certtrain(*told, "hydra.run.dir=mine", cwd=tmp_path).returncode == 0
    first = summary(tmp_path / "mine")
    more = certtrain("resume=mine", "trainer.max_epochs=2", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert "note: trainer.max_epochs 1 -> 2: learning rate, eps and batches" in more.stdout
    assert "epoch 2/2" in more.stdout
    record = summary(tmp_path / "mine")
    assert (record["command"], record["overrides"][-1]) == (first["command"], "trainer.max_epochs=2")
    assert [start["command"] for start in record["continued"]] == [
        "python -m certtrain resume=mine trainer.max_epochs=2"
    ]
    assert json.loads((tmp_path / "mine" / "earlier" / "step-20" / "summary.json").read_text()) == first
    again = certtrain("resume=mine", cwd=tmp_path)
    assert "mine has finished" in again.stdout
    fork = certtrain("fork=mine", "model=mlp", "optimizer.lr=1e-4", "hydra.run.dir=other", cwd=tmp_path)
    assert fork.returncode == 0, fork.stderr
    parent = summary(tmp_path / "other")["forked_from"]
    judged = tmp_path / "mine" / "checkpoints" / record["checkpoint"]
    assert (parent["run"], parent["checkpoint"]) == (str(tmp_path / "mine"), judged.name)
    assert parent["step"] == torch.load(judged, weights_only=True)["global_step"]
    assert parent["changed"] == ["optimizer.lr is 0.005 there, 0.0001 here"]
    refused = certtrain("resume=other", "trainer.max_epochs=3", "scheduler=cosine", cwd=tmp_path)
    assert (refused.returncode, "holds another run" in refused.stderr) == (2, True)


@pytest.mark.slow
def test_mnist_with_a_convolutional_network(tmp_path: Path, mnist_folder: Path) -> None:
    done = certtrain(
        "data=mnist",
        f"data.path={mnist_folder}",
        "model=cnn3",
        "method=grad",
        "relaxation=crown_ibp",
        "eps=0.1",
        "certify.verifiers=[ibp,crown_ibp]",
        *QUICK,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("outputs/*/*")
    assert summary(run)["parameters"] == 24_330


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pgpe.sgima=0.01"], "unknown key 'pgpe.sgima'"),
        pytest.param(["relaxation=nope"], "unknown relaxation 'nope'", marks=pytest.mark.slow),
        (["-m", "pgpe.sigma=0.1,-1"], "pgpe.sigma must be greater than 0"),
        pytest.param(["data=mnist", "data.path=nowhere"], "nowhere", marks=pytest.mark.slow),
        pytest.param(
            ["data.validation=0.9999"],
            "data.validation=0.9999 of 1437 training images holds out 1437",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = certtrain(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_and_the_composed_configuration(tmp_path: Path) -> None:
    shown = certtrain("--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert shown.stdout.count("python -m certtrain ") >= 4
    composed = certtrain("--cfg", "job", "pgpe.sigma=0.25", cwd=tmp_path)
    assert composed.returncode == 0
    assert "sigma: 0.25" in composed.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_no_traceback_and_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "certtrain", "method=grad", "relaxation=ibp", "trainer.max_epochs=10000"]
    process = subprocess.Popen(
        [*command, "hydra.run.dir=run"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    for _ in range(1200):
        if checkpoint.is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines() == [
        "certtrain: SIGINT: stops at the end of this generation; a second signal stops at once",
        "certtrain: interrupted",
    ]
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert f"stopped at step {step} by SIGINT: the same command, or resume=" in output
