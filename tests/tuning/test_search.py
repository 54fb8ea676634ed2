"""Searches over planted functions: no job trains, each leaves the record that a run would leave."""

import csv
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

from planted_searches import (
    BOTH,
    CERTIFIED,
    GRID,
    HYPERBAND,
    MEDIAN,
    NATURAL,
    NSGA2,
    RANDOM,
    TPE,
    Planted,
    Scripted,
    bowl,
    front,
    leave,
    numbers,
    searched,
)

from certtrain.errors import CerttrainError, ConfigError
from certtrain.lock import locked
from certtrain.sweep.basic import Basic
from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.parallel import Joblib
from certtrain.sweep.runner import Runner
from certtrain.sweep.slurm import Submitit
from certtrain.sweep.sweep import Sweep, SweepFailed
from certtrain.tuning import watch
from certtrain.tuning.search import LOCK


def test_tpe_finds_what_a_few_random_trials_do_not(tmp_path: Path) -> None:
    launcher = Planted(tmp_path, bowl)
    record, printed = searched(launcher, ["method=grad", "lr=tag(log,interval(1e-6,1))"], n_trials=30)
    trials = record["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 30
    (best,) = [trial for trial in trials if trial["best"]]
    assert 10**-2.3 < best["values"]["lr"] < 10**-1.7
    assert best["figures"][CERTIFIED] == max(trial["figures"][CERTIFIED] for trial in trials)
    assert all(job.overrides[0] == "method=grad" for job in launcher.run_jobs)
    assert f"largest {CERTIFIED}" in printed
    assert all(len(line) <= 80 for line in printed.splitlines() if line.startswith(("┃", "│")))
    assert "Chosen by validation images" in printed
    rows = list(csv.DictReader((tmp_path / "search.csv").open()))
    assert [float(row["lr"]) for row in rows] == [trial["values"]["lr"] for trial in trials]
    assert (tmp_path / "front.png").stat().st_size > 1000
    assert (tmp_path / "front.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("sampler", [TPE, NSGA2, RANDOM], ids=["tpe", "nsga2", "random"])
def test_two_objectives_with_a_constraint(tmp_path: Path, sampler: dict[str, Any]) -> None:
    options = {"objectives": BOTH, "constraints": [f"{NATURAL}>=0.6"], "sampler": sampler, "n_trials": 14}
    record, printed = searched(Planted(tmp_path, front), ["x=interval(0,1)", "y=0,0.1"], **options)
    trials = record["trials"]
    for trial in trials:
        assert trial["feasible"] == (trial["values"]["x"] >= 0.2)
        beaten = [
            other
            for other in trials
            if other["feasible"]
            and all(other["figures"][key] >= trial["figures"][key] for key in (NATURAL, CERTIFIED))
            and other["figures"] != trial["figures"]
        ]
        assert trial["best"] == (trial["feasible"] and not beaten)
    assert "Pareto front" in printed
    assert (tmp_path / "front.svg").is_file()


def test_the_grid_is_tried_once_and_seeds_are_averaged_inside(tmp_path: Path) -> None:
    launcher = Planted(tmp_path, lambda found: {CERTIFIED: found["a"] / 10 + found["seed"] / 100})
    options = {"sampler": GRID, "n_trials": None}
    record, _ = searched(launcher, ["a=1,2,3", "b=range(0,1,0.5)", "seed=0,1,2"], **options)
    assert len(launcher.run_jobs) == 18
    assert [job.number for job in launcher.run_jobs] == list(range(18))
    assert [trial["values"] for trial in record["trials"]] == [{"a": a, "b": b} for a in (1, 2, 3) for b in (0.0, 0.5)]
    assert record["trials"][-1]["figures"][CERTIFIED] == pytest.approx(0.31)
    assert record["trials"][-1]["jobs"] == [15, 16, 17]
    again = Planted(tmp_path, launcher.function)
    searched(again, ["a=1,2,3", "b=range(0,1,0.5)", "seed=0,1,2"], **options)
    assert again.run_jobs == []
    jobs = json.loads((tmp_path / "sweep.json").read_text())["jobs"]
    assert [row["status"] for row in jobs] == ["done before"] * 18


def test_costs_can_be_made_small(tmp_path: Path) -> None:
    launcher = Planted(tmp_path, bowl)
    options = {"objectives": [CERTIFIED, {"train_seconds": "minimize"}], "n_trials": 4}
    record, _ = searched(launcher, ["lr=tag(log,interval(1e-6,1))"], **options)
    assert all(trial["figures"]["train_seconds"] == 2.0 for trial in record["trials"])
    assert sum(trial["best"] for trial in record["trials"]) == 1


def test_the_figure_is_that_of_the_weights_that_are_judged(tmp_path: Path) -> None:
    class Late(Planted):
        def run(self, jobs: Iterable[Job], sweep: Sweep, total: int | None) -> None:
            with sweep.running(False, 1, total):
                for job in jobs:
                    rows = [{CERTIFIED: c, NATURAL: n} for c, n in ((0.1, 0.9), (0.5, 0.7), (0.5, 0.8), (0.4, 0.99))]
                    leave(job.directory, rows)
                    sweep.ended(job, Outcome("done", 0, 1.0))

    record, _ = searched(Late(tmp_path, bowl), ["lr=1,2"], objectives=BOTH, n_trials=1)
    assert record["trials"][0]["figures"] == {NATURAL: 0.7, CERTIFIED: 0.5}


def test_a_trial_that_failed_is_told_and_tried_again_by_the_same_command(tmp_path: Path) -> None:
    broken = True

    def function(found: dict[str, float]) -> dict[str, float] | None:
        if found["a"] == 2 and broken:
            return None
        return {CERTIFIED: math.nan if found["a"] == 3 and broken else 0.5}

    options = {"sampler": GRID, "n_trials": None}
    launcher = Planted(tmp_path, function)
    with pytest.raises(SweepFailed, match="1 of 3 jobs failed; the same command runs them again"):
        searched(launcher, ["a=1,2,3"], **options)
    record = json.loads((tmp_path / "search.json").read_text())
    assert [trial["state"] for trial in record["trials"]] == ["complete", "failed", "failed"]
    assert record["trials"][1]["reason"] == "job 1 failed"
    assert f"{CERTIFIED} is nan" in record["trials"][2]["reason"]
    broken = False
    again = Planted(tmp_path, function)
    record, _ = searched(again, ["a=1,2,3"], **options)
    assert [numbers(job.overrides)["a"] for job in again.run_jobs] == [2, 3]
    assert [trial["state"] for trial in record["trials"]] == ["complete", "failed", "failed", "complete", "complete"]


def test_a_search_without_a_result_fails_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(SweepFailed, match=r"no trial came to a result: .* has no val/loss; it has val/certified"):
        searched(Planted(tmp_path, lambda found: {CERTIFIED: 0.5}), ["a=1,2"], objectives=[{"val/loss": "minimize"}])


KILLED = """
import sys, time
sys.path[:0] = [{tests!r}]
from pathlib import Path
import planted_searches as t

def function(found):
    done = list(Path({folder!r}).glob("*/summary.json"))
    if len(done) == 3:
        Path({folder!r}, "ready").touch()
        time.sleep(60)
    return t.bowl(found)

t.searched(t.Planted(Path({folder!r}), function), {overrides!r}, n_trials=6, storage={storage!r})
"""


@pytest.mark.parametrize("storage", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_a_search_that_was_killed_loses_and_repeats_nothing(tmp_path: Path, storage: str) -> None:
    folder, overrides = tmp_path / "search", ["lr=tag(log,interval(1e-6,1))"]
    folder.mkdir()
    tests = str(Path(__file__).parents[1])
    script = KILLED.format(tests=tests, folder=str(folder), overrides=overrides, storage=storage)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not (folder / "ready").exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder / "ready").unlink()
    if storage == "journal":  # and in the middle of a line
        with (folder / "study.journal").open("ab") as file:
            file.write(b'{"op_code":6,"worker')
    before = json.loads((folder / "search.json").read_text())["trials"]
    assert [trial["state"] for trial in before] == ["complete"] * 3  # the fourth has begun since
    done = {0, 1, 2}
    if storage == "sqlite":  # and the job had ended by itself
        leave(folder / "3", [{CERTIFIED: 0.125, NATURAL: 0.5}])
        done.add(3)
    launcher = Planted(folder, bowl)
    record, _ = searched(launcher, overrides, n_trials=6, storage=storage)
    assert {job.number for job in launcher.run_jobs} == set(range(6)) - done
    assert [trial["state"] for trial in record["trials"]] == ["complete"] * 6
    assert record["trials"][:3] == [
        {**trial, "best": now["best"]} for trial, now in zip(before, record["trials"], strict=False)
    ]
    assert len({trial["values"]["lr"] for trial in record["trials"]}) == 6
    rows = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert [(row["job"], row["status"]) for row in rows] == [
        (number, "done before" if number in done else "done") for number in range(6)
    ]
    more = Planted(folder, bowl)
    searched(more, overrides, n_trials=7, storage=storage)
    assert [job.number for job in more.run_jobs] == [6]


def test_two_processes_do_not_search_in_one_directory_nor_two_searches(tmp_path: Path) -> None:
    launcher = Planted(tmp_path, bowl)
    searched(launcher, ["lr=1,2"], n_trials=1)
    with locked(tmp_path, LOCK), pytest.raises(CerttrainError, match="is in use by process"):
        searched(launcher, ["lr=1,2"], n_trials=2)
    with pytest.raises(ConfigError, match="holds another search .space is .* there, .* here.: choose another"):
        searched(launcher, ["lr=1,3"], n_trials=2)
    with pytest.raises(ConfigError, match="holds another search .objectives is"):
        searched(launcher, ["lr=1,2"], objectives=BOTH)
    (tmp_path / "study.journal").write_text("no study\n")
    with pytest.raises(ConfigError, match=r"study.journal is no study file: "):
        searched(launcher, ["lr=1,2"], n_trials=2)


# submitit's stand-in for a cluster.
ONE = {"nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1}
CLUSTER = Submitit(n_jobs=1, slurm={}, cluster="local", timeout_min=2, gpus_per_node=0, mem_gb=None, **ONE)
# Says after every epoch how good it is: 1 - a/10 at once, for four epochs.
TRAINS = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
found = json.loads(sys.argv[1])
for epoch in range(4):
    value = (1 - found["a"] / 10) * (epoch + 1) / 4
    with open("metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 10 * (epoch + 1), "epoch": epoch, "val/certified_accuracy": value}) + "\\n")
    time.sleep(0.05 if found["a"] < 5 else 1.0)
open("summary.json", "w").write("{}")
open("report.html", "w")
"""


@pytest.mark.parametrize(
    ("runner", "pruner"),
    [
        pytest.param(Basic(), MEDIAN, id="median"),
        pytest.param(Joblib(2), HYPERBAND, id="hyperband"),
        pytest.param(CLUSTER, MEDIAN, id="submitit", marks=pytest.mark.slow),
    ],
)
def test_a_job_that_is_behind_is_ended(
    tmp_path: Path, runner: Runner, pruner: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.Watch.__init__, "__defaults__", (0.05,))
    launcher = Scripted(tmp_path, TRAINS, runner, epochs=4)
    options = {"sampler": GRID, "n_trials": None, "pruner": pruner}
    started = time.monotonic()
    record, printed = searched(launcher, ["a=1,2,8,9", "seed=0,1"], **options)
    assert time.monotonic() - started < 90
    states = [trial["state"] for trial in record["trials"]]
    assert states[0] == "complete"
    assert "pruned" in states[2:]
    rows = {row["job"]: row["status"] for row in json.loads((tmp_path / "sweep.json").read_text())["jobs"]}
    (one, *_) = [trial for trial in record["trials"] if trial["state"] == "pruned"]
    first, second = one["jobs"]
    assert rows[first] == "pruned"
    assert rows.get(second) in ("pruned", None, "done")
    assert "behind earlier trials" in one["reason"]
    assert not (tmp_path / str(first) / "summary.json").exists()
    assert one["reason"] in (tmp_path / str(first) / "pruned.txt").read_text()
    assert f"job {first} pruned" in printed
    again = Scripted(tmp_path, TRAINS, runner, epochs=4)
    later, _ = searched(again, ["a=1,2,8,9", "seed=0,1"], **options)
    assert [trial["state"] for trial in later["trials"]] == states, "what was pruned stays so"
