"""Sweeps and studies as people type them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from certtrain.cli.commands.study import check, plan, read
from certtrain.errors import CerttrainError

QUICK = ["trainer.max_steps=3", "certify.limit=8", "certify.attack.steps=2", "certify.attack.restarts=1"]
PLAIN = ["method=grad", "relaxation=ibp", *QUICK]
DIGITS = Path(__file__).resolve().parents[2] / "studies" / "digits.yaml"
# Passes every check before the sweep, and breaks in its third step if its rate is above 1.
PLANTED = """
import torch

class Planted(torch.optim.SGD):
    steps = 0

    def step(self, closure=None):
        self.steps += 1
        if self.steps > 2 and self.param_groups[0]["lr"] > 1:
            raise ArithmeticError("planted")
        return super().step(closure)
"""


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(filter(None, [str(cwd), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "certtrain", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths, "WANDB_SILENT": "true", "COLUMNS": "160", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def certtrain(*arguments: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    process = start(*arguments, cwd=cwd, **environment)
    output, errors = process.communicate(timeout=280)
    return process.returncode, output, errors


def recorded(directory: Path) -> list[dict]:
    return json.loads((directory / "sweep.json").read_text())["jobs"]


@pytest.mark.slow
def test_jobs_have_processes_directories_and_wandb_runs_of_their_own(tmp_path: Path) -> None:
    """Side by side, started from within a rank of something else; one fails, and is told."""
    (tmp_path / "planted.py").write_text(PLANTED)
    planted = ["optimizer._target_=planted.Planted", "optimizer.lr=0.1,2", "scheduler=constant"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "logger=wandb", "hydra.sweep.dir=sweep"]
    command = ("-m", *PLAIN, *planted, *launcher)
    foreign = {"WANDB_MODE": "offline", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
    code, output, errors = certtrain(*command, cwd=tmp_path, **foreign)
    assert code != 0
    assert errors.strip() == "certtrain: error: 1 of 2 jobs failed; the same command runs them again"
    assert [row["status"] for row in recorded(tmp_path / "sweep")] == ["done", "failed"]
    assert "ArithmeticError: planted" in (tmp_path / "sweep" / "1" / "traceback.txt").read_text()
    assert "optimizer.lr=2" in output
    ids = [path.read_text().strip() for path in tmp_path.glob("sweep/*/wandb_id.txt")]
    runs = [path for path in tmp_path.glob("sweep/*/wandb/offline-run-*") if path.is_dir()]
    assert sorted(ids) == sorted(path.name.rsplit("-", 1)[1] for path in runs)
    assert len(set(ids)) == 2
    assert "step 3/3" in (tmp_path / "sweep" / "0" / "output.log").read_text()
    (tmp_path / "planted.py").write_text(PLANTED.replace('lr"] > 1', 'lr"] > 3'))
    code, output, errors = certtrain(*command, cwd=tmp_path, **foreign)
    assert code == 0, errors
    assert [row["status"] for row in recorded(tmp_path / "sweep")] == ["done before", "done"]
    assert not (tmp_path / "sweep" / "1" / "traceback.txt").exists()


@pytest.mark.slow
def test_a_sweep_one_after_the_other_and_again(tmp_path: Path) -> None:
    command = ["-m", *PLAIN, "seed=0,1", "hydra.sweep.dir=sweep"]
    code, output, errors = certtrain(*command, cwd=tmp_path)
    assert code == 0, errors
    assert output.count("certified by any (union)") == 2
    before = (tmp_path / "sweep" / "0" / "summary.json").stat().st_mtime_ns
    code, output, errors = certtrain(*command, cwd=tmp_path)
    assert code == 0, errors
    assert [row["status"] for row in recorded(tmp_path / "sweep")] == ["done before", "done before"]
    assert (tmp_path / "sweep" / "0" / "summary.json").stat().st_mtime_ns == before
    code, output, errors = certtrain("-m", *PLAIN, "seed=5,6", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert code == 2
    assert "sweep holds another sweep" in errors
    code, output, errors = certtrain("collect", "sweep", cwd=tmp_path)
    assert code == 0, errors
    assert (tmp_path / "sweep" / "collected.png").is_file()


@pytest.mark.slow
def test_the_documented_sweep(tmp_path: Path) -> None:
    code, _, errors = certtrain(
        "-m",
        "relaxation=ibp,hbox,crown_ibp,deeppoly",
        "pgpe.sigma=1e-3,1e-2",
        "pgpe.population_size=64,128",
        "trainer.max_steps=1",
        "hydra/launcher=joblib",
        *QUICK[1:],
        cwd=tmp_path,
    )
    assert code == 0, errors
    jobs = sorted(tmp_path.glob("outputs/multirun/*/*/summary.json"))
    assert len(jobs) == 16
    assert {json.loads(job.read_text())["relaxation"] for job in jobs} == {"ibp", "hbox", "crown_ibp", "deeppoly"}


@pytest.mark.slow
def test_sigterm_stops_the_jobs_and_leaves_the_table(tmp_path: Path) -> None:
    endless = ["method=grad", "relaxation=ibp", "trainer.max_epochs=100000", "seed=0,1", "hydra.sweep.dir=sweep"]
    process = start("-m", *endless, cwd=tmp_path)
    metrics = tmp_path / "sweep" / "0" / "metrics.jsonl"
    for _ in range(900):
        if metrics.is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert [row["status"] for row in recorded(tmp_path / "sweep")] == ["stopped", "not run"]
    assert "not run" in output


@pytest.mark.slow
def test_jobs_of_two_ranks_each(tmp_path: Path) -> None:
    ddp = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "seed=0,1", "hydra.sweep.dir=sweep"]
    code, _, errors = certtrain("-m", *PLAIN, *ddp, "logger=wandb", cwd=tmp_path, WANDB_MODE="offline")
    assert code == 0, errors
    assert [row["status"] for row in recorded(tmp_path / "sweep")] == ["done", "done"]
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir()) == ["0", "1"]
    assert len([path for path in tmp_path.glob("sweep/*/wandb/offline-run-*") if path.is_dir()]) == 2


@pytest.mark.slow
def test_a_study_runs_its_sweeps_and_collects_them(tmp_path: Path) -> None:
    common = [*PLAIN[2:], "relaxation=ibp", "hydra/launcher=joblib"]
    sweeps = {"seeds": ["method=grad", "seed=0,1"], "sigma": ["method=pgpe", "pgpe.sigma=0.1"]}
    study = {"directory": "study", "common": common, "sweeps": sweeps}
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    code, _, errors = certtrain("study", "study.yaml", "trainer.max_steps=2", cwd=tmp_path)
    assert code == 0, errors
    assert len(list(tmp_path.glob("study/*/*/summary.json"))) == 3
    lines = (tmp_path / "study" / "collected.md").read_text().splitlines()
    assert [line.split("|")[2].strip() for line in lines if line.startswith("| ibp")] == ["grad", "pgpe"]
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert "2 settings in 3 runs" in page
    code, _, errors = certtrain("study", "study.yaml", "trainer.max_steps=2", cwd=tmp_path)
    assert code == 0, errors
    told = [row["status"] for sweep in sweeps for row in recorded(tmp_path / "study" / sweep)]
    assert told == ["done before"] * 3


@pytest.mark.slow
def test_the_digits_study_can_run(tmp_path: Path) -> None:
    check(plan(read(DIGITS), tmp_path, []))


def test_the_digits_study_has_what_it_promises(tmp_path: Path) -> None:
    sweeps = {sweep.directory.name: " ".join(sweep.arguments) for sweep in plan(read(DIGITS), tmp_path, ["eps=0.1"])}
    for method in ("grad", "rgs", "pgpe"):
        assert f"method={method} relaxation=ibp,hbox,crown_ibp,deeppoly" in sweeps[method]
    assert "pgpe.control_variate=none" in sweeps["pgpe"]
    assert "control_variate=none" not in sweeps["shrunk"]
    assert all("seed=0,1,2" in line and line.startswith("-m ") for line in sweeps.values())
    assert all(" eps=0.1 hydra.sweep.dir='" in line for line in sweeps.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("directory: d\ncommon: []\nsweeps: {}", "sweeps"),
        ("directory: d\ncommon: []\nsweeps: {a: [x=1]}\nmore: 1", "more"),
        ("{", "no YAML"),
        ("3", "study"),
    ],
)
def test_a_study_that_is_none_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(CerttrainError, match=message) as caught:
        read(tmp_path / "study.yaml")
    assert "\n" not in str(caught.value)


def test_a_study_is_checked_whole_before_its_first_sweep(tmp_path: Path) -> None:
    text = "directory: d\ncommon: [method=grad]\nsweeps: {good: ['seed=0,1'], bad: ['eps=0.1,7']}"
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(CerttrainError, match="eps must be less than or equal to 1"):
        check(plan(read(tmp_path / "study.yaml"), tmp_path / "out", []))
    assert not (tmp_path / "out").exists()
