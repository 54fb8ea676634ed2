"""Searches as people type them: what is refused before anything is written, and one that is run."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from certtrain.cli.configuration.compose import Command, compose_jobs, with_configured_sweep
from certtrain.cli.configuration.schema import plain
from certtrain.cli.help.page import help_page
from certtrain.cli.job.entry import run_in
from certtrain.cli.job.preflight import preflight
from certtrain.errors import ConfigError
from certtrain.sweep.jobs import PRUNED
from certtrain.training.module import CertifiedTraining
from certtrain.tuning import settings

QUICK = ("method=grad", "relaxation=ibp", "model.widths=[8]", "certify.enabled=false", "trainer.max_epochs=2")
SEARCH = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=2")
RATE = "optimizer.lr=tag(log,interval(1e-3,1e-1))"


def checked(folder: Path, *overrides: str) -> None:
    typed = (*QUICK, *SEARCH, f"hydra.sweep.dir='{folder}'", *overrides)
    preflight(with_configured_sweep(Command(typed, True, False)))


def test_a_search_that_can_run_is_not_refused_and_leaves_nothing(tmp_path: Path) -> None:
    checked(tmp_path / "new", RATE, "seed=0,1", "hydra/launcher=joblib", "hydra/sweeper/sampler=nsga2")
    assert list(tmp_path.iterdir()) == []


def test_the_ends_of_an_interval_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="eps must be less than or equal to 1"):
        checked(tmp_path, "eps=interval(0.1,3)")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((RATE, "data.validation=0"), "a search goes by validation images: data.validation must be more than 0"),
        ((RATE, "hydra.sweeper.objectives=[certified_accuracy]"), "is a figure of the test images"),
        ((RATE, "hydra/sweeper/pruner=median"), "pruner compares one figure"),
        ((RATE, "hydra/sweeper/sampler=grid"), "optimizer.lr is an interval; a grid takes lists and ranges"),
        (
            (RATE, "hydra/sweeper/sampler=tpa"),
            "unknown hydra/sweeper/sampler 'tpa': possible are grid, nsga2, random, tpe",
        ),
        ((RATE, "hydra.sweeper.n_trails=3"), "unknown key 'hydra.sweeper.n_trails'"),
        ((), "nothing to search over"),
    ],
)
def test_a_search_that_cannot_run_is_refused_in_one_line(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        checked(tmp_path / "search", *overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "search").exists()


def test_a_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="exists and holds no search: choose another hydra.sweep.dir"):
        checked(tmp_path, RATE)


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'needs Optuna: pip install "certtrain\[optuna\]"'):
        checked(tmp_path / "search", RATE)


def test_an_experiment_may_hold_a_search(tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "tuned.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: optuna\n"
        "hydra: {mode: MULTIRUN, sweeper: {n_trials: 3, params: {optimizer.lr: 'interval(1e-3,1e-2)'}}}\n"
    )
    command = Command(("experiment=tuned", *QUICK, f"hydra.sweep.dir='{tmp_path}/s'"), False, False, tmp_path / "conf")
    found = with_configured_sweep(command)
    assert found.multirun
    assert "optimizer.lr=interval(1e-3,1e-2)" in found.overrides
    preflight(found)


def test_help_knows_the_groups() -> None:
    page = help_page()
    assert "hydra/sweeper/sampler" in page
    assert "* tpe" in page


@pytest.mark.slow
def test_a_search_is_run_and_goes_on(tmp_path: Path) -> None:
    def certtrain(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "certtrain", *arguments],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=280,
        )
        return done.returncode, done.stdout, done.stderr

    command = ["-m", *QUICK, *SEARCH, RATE, "hydra/launcher=joblib", "hydra.sweep.dir=search"]
    code, output, errors = certtrain(*command)
    assert code == 0, errors
    assert "2 trials: 2 complete" in output
    record = json.loads((tmp_path / "search" / "search.json").read_text())
    for trial in record["trials"]:
        assert 0 < trial["figures"]["val/natural_accuracy"] <= 1
        overrides = (tmp_path / "search" / str(trial["jobs"][0]) / ".hydra" / "overrides.yaml").read_text()
        assert f"optimizer.lr={trial['values']['optimizer.lr']!r}" in overrides
    assert (tmp_path / "search" / "front.png").is_file()
    code, output, errors = certtrain(*command, "hydra.sweeper.n_trials=3")
    assert code == 0, errors
    assert "3 trials: 3 complete" in output
    assert len(list(csv.reader((tmp_path / "search" / "search.csv").open()))) == 4
    again = json.loads((tmp_path / "search" / "search.json").read_text())["trials"]
    assert [trial["values"] for trial in again[:2]] == [trial["values"] for trial in record["trials"]]
    statuses = [row["status"] for row in json.loads((tmp_path / "search" / "sweep.json").read_text())["jobs"]]
    assert statuses == ["done before", "done before", "done"]


def test_a_run_that_its_search_has_stopped_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = compose_jobs(Command((*QUICK, "trainer.max_steps=5"), False, False))
    (tmp_path / PRUNED).write_text("behind\n")
    with monkeypatch.context() as patch:
        patch.setattr(CertifiedTraining, "on_train_batch_end", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert run_in(tmp_path, plain(job)) == {}
        assert "pruned by its search: behind" in capsys.readouterr().out
        assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
        (tmp_path / PRUNED).unlink()
        with pytest.raises(SystemExit):  # stopped by someone else: it goes on later
            run_in(tmp_path, plain(job))
