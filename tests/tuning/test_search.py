"""Searches over planted functions: no job trains, each leaves the record that a run would leave."""

import csv
import io
import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

pytest.importorskip("optuna")

from certtrain.errors import CerttrainError, ConfigError
from certtrain.lock import locked
from certtrain.sweep.basic import Basic
from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.parallel import Joblib
from certtrain.sweep.runner import Runner
from certtrain.sweep.sweep import Sweep, SweepFailed
from certtrain.tuning import watch
from certtrain.tuning.plan import planned
from certtrain.tuning.search import LOCK, search

NATURAL, CERTIFIED = "val/natural_accuracy", "val/certified_accuracy"
BOTH = [{NATURAL: "maximize"}, {CERTIFIED: "maximize"}]
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 0, "n_startup_trials": 4, "constant_liar": True}
RANDOM = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}
NSGA2 = {"_target_": "optuna.samplers.NSGAIISampler", "seed": 0, "population_size": 4}
GRID = {"_target_": "certtrain.tuning.grid.Grid"}
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1, "n_warmup_steps": 0}
HYPERBAND = {"_target_": "optuna.pruners.HyperbandPruner", "min_resource": 1, "max_resource": 1, "reduction_factor": 2}
NONE = {"_target_": "optuna.pruners.NopPruner"}
DEFAULTS: dict[str, Any] = {
    **{"n_trials": 8, "objectives": [CERTIFIED], "constraints": [], "repeat": ["seed"], "storage": "journal"},
    **{"sampler": TPE, "pruner": NONE, "params": None},
}


def numbers(overrides: Sequence[str]) -> dict[str, float]:
    return {k: float(v) for k, _, v in (o.partition("=") for o in overrides) if re.fullmatch(r"[\d.e+-]+", v)}


def leave(directory: Path, validations: Sequence[dict[str, float]], **summary: Any) -> None:
    """What a finished run leaves."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = [{"step": 10 * (epoch + 1), "epoch": epoch, **row} for epoch, row in enumerate(validations)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "summary.json").write_text(json.dumps({"certified_accuracy": 0.0, "train_seconds": 2.0, **summary}))
    (directory / "report.html").touch()


class Planted:
    """A launcher whose jobs are calls of a function: overrides -> what the last validation says."""

    def __init__(self, directory: Path, function: Callable[[dict[str, float]], dict[str, float] | None]) -> None:
        self.directory, self.function = directory, function
        self.run_jobs: list[Job] = []

    def job(self, number: int, overrides: Sequence[str]) -> Job:
        return Job(number, tuple(overrides), self.directory / str(number), (), self.directory, epochs=1)

    def run(self, jobs: Iterable[Job], sweep: Sweep, total: int | None) -> None:
        with sweep.running(False, 1, total):
            for job in jobs:
                sweep.started(job)
                self.run_jobs.append(job)
                found = self.function(numbers(job.overrides))
                if found is not None:
                    leave(job.directory, [found])
                sweep.ended(job, Outcome("failed", 1, 1.0) if found is None else Outcome("done", 0, 1.0))


class Scripted(Planted):
    """A launcher whose jobs are processes of a script."""

    def __init__(self, directory: Path, script: str, runner: Runner, epochs: int) -> None:
        super().__init__(directory, lambda found: None)
        self.script, self.runner, self.epochs = script, runner, epochs

    def job(self, number: int, overrides: Sequence[str]) -> Job:
        own = self.directory / str(number)
        own.mkdir(exist_ok=True)
        command = (sys.executable, "-c", self.script, json.dumps(numbers(overrides)))
        return Job(number, tuple(overrides), own, command, own, epochs=self.epochs)

    def run(self, jobs: Iterable[Job], sweep: Sweep, total: int | None) -> None:
        with sweep.running(self.runner.side_by_side, self.runner.at_a_time(total), total):
            self.runner.run(jobs, sweep)


def searched(launcher: Planted, overrides: Sequence[str], **options: Any) -> tuple[dict[str, Any], str]:
    """search.json, and what was printed at 80 columns."""
    settings, space = planned({**DEFAULTS, **options}, overrides, None)
    console = Console(record=True, width=80, file=io.StringIO())
    sweep = Sweep(console)
    search(settings, space, launcher, sweep, fail_fast=False)
    sweep.conclude()
    return json.loads((launcher.directory / "search.json").read_text()), console.export_text()


def bowl(found: dict[str, float]) -> dict[str, float]:
    return {CERTIFIED: 0.9 - (math.log10(found["lr"]) + 2) ** 2 / 10, NATURAL: 0.95}


def front(found: dict[str, float]) -> dict[str, float]:
    return {NATURAL: 0.5 + found["x"] / 2, CERTIFIED: 0.9 - found["x"] / 2 - found["y"]}


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
import test_search as t

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
    tests = str(Path(__file__).parent)
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
    launcher = Planted(folder, bowl)
    record, _ = searched(launcher, overrides, n_trials=6, storage=storage)
    assert [job.number for job in launcher.run_jobs] == [3, 4, 5]
    assert [trial["state"] for trial in record["trials"]] == ["complete"] * 6
    assert record["trials"][:3] == [
        {**trial, "best": now["best"]} for trial, now in zip(before, record["trials"], strict=False)
    ]
    assert len({trial["values"]["lr"] for trial in record["trials"]}) == 6
    rows = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert [(row["job"], row["status"]) for row in rows] == [
        *((n, "done before") for n in range(3)),
        *((n, "done") for n in range(3, 6)),
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


@pytest.mark.parametrize(("runner", "pruner"), [(Basic(), MEDIAN), (Joblib(2), HYPERBAND)], ids=["median", "hyperband"])
def test_a_job_that_is_behind_is_ended(
    tmp_path: Path, runner: Runner, pruner: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.Watch.__init__, "__defaults__", (0.05,))
    launcher = Scripted(tmp_path, TRAINS, runner, epochs=4)
    options = {"sampler": GRID, "n_trials": None, "pruner": pruner}
    started = time.monotonic()
    record, printed = searched(launcher, ["a=1,2,8,9", "seed=0,1"], **options)
    assert time.monotonic() - started < 30
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


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        (["lr=1"], {}, "nothing to search over"),
        (["lr=interval(2,1)"], {}, "from a smaller number to a larger one"),
        (["lr=tag(log,interval(0,1))"], {}, "tag log needs an interval above 0"),
        (["lr=tag(lgo,interval(1,2))"], {}, "unknown tag lgo: the one tag is log"),
        (["lr=tag(log,range(1,9))"], {}, "a range has no logarithm"),
        (["lr=1,2", "seed=interval(0,1)"], {}, "what is repeated inside a trial is a list"),
        (["lr=1,2"], {"n_trials": 0}, "n_trials must be a whole number, at least 1, got 0"),
        (["lr=1,2"], {"n_trials": None}, "only hydra/sweeper/sampler=grid knows"),
        (["lr=1,2"], {"storage": "paper"}, "storage must be journal or sqlite, got 'paper'"),
        (["lr=1,2"], {"objectives": []}, "must have at least 1 entry"),
        (["lr=1,2"], {"objectives": ["val/loss"]}, "does not say which way is better, as {val/loss:minimize} does"),
        (["lr=1,2"], {"objectives": [{"val/loss": "down"}]}, "must be maximize or minimize, got 'down'"),
        (["lr=1,2"], {"objectives": ["certified_accuracy"]}, "tuned on them: take val/certified_accuracy"),
        (["lr=1,2"], {"objectives": [{"certified_accuracy_by.ibp": "maximize"}]}, "a figure of the test images"),
        (["lr=1,2"], {"objectives": [{"speed": "maximize"}]}, "unknown figure 'speed': possible are val/"),
        (["lr=1,2"], {"objectives": [CERTIFIED, CERTIFIED]}, "stands there twice"),
        (["lr=1,2"], {"constraints": ["val/natural_accuracy>0.9"]}, "with >= or <="),
        (["lr=1,2"], {"constraints": ["attacked_accuracy>=0.9"]}, "a figure of the test images"),
        (["lr=1,2"], {"objectives": BOTH, "pruner": MEDIAN}, "pruner compares one figure: give one objective"),
        (["lr=1,2"], {"objectives": [{"parameters": "minimize"}], "pruner": MEDIAN}, "not known while a job runs"),
        (["lr=1,2"], {"sampler": {**TPE, "sede": 1}}, "hydra.sweeper.sampler: .*unexpected keyword argument 'sede'"),
        (["lr=interval(1,2)"], {"sampler": GRID}, "lr is an interval; a grid takes lists and ranges"),
    ],
)
def test_what_cannot_be_searched_is_told_in_one_line(
    tmp_path: Path, overrides: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        searched(Planted(tmp_path / "search", bowl), overrides, **options)
    assert "\n" not in str(caught.value)


def test_choices_are_overrides_again() -> None:
    typed = [
        "relaxation=ibp,deeppoly",
        "w='a b',c",
        "+k=true,null",
        "n=range(2,9,3)",
        "f=range(0.,1.,0.1)",
        "i=int(interval(1,3))",
    ]
    _, space = planned(DEFAULTS, typed, None)
    values = {"relaxation": "ibp", "w": "'a b'", "+k": None, "n": 5, "f": 3 * 0.1, "i": 2}
    (job,) = space.jobs(values)
    parsed = {o.get_key_element(): o.value() for o in OverridesParser.create().parse_overrides(list(job))}
    assert parsed == {"relaxation": "ibp", "w": "a b", "+k": None, "n": 5, "f": 0.3, "i": 2}
    assert space.parameters[3].values() == [2, 5, 8]


def test_keys_of_a_file_are_searched_unless_they_are_typed() -> None:
    options = {**DEFAULTS, "params": {"lr": "tag(log,interval(1e-3,1))", "sigma": "interval(1,2)"}}
    _, space = planned(options, ["lr=1,2"], None)
    assert {parameter.key: parameter.choices for parameter in space.parameters} == {"lr": (1, 2), "sigma": ()}
