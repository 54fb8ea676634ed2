"""Searches whose jobs train nothing: each leaves the record that a run would leave."""

import io
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.runner import Runner
from certtrain.sweep.sweep import Sweep
from certtrain.tuning.plan import planned
from certtrain.tuning.search import search

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
