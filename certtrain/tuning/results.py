"""What a search has found: search.json, search.csv, and a table of the best trials."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from certtrain.errors import ConfigError
from certtrain.files import replacing
from certtrain.times import duration
from certtrain.tuning.choosers import VIOLATIONS
from certtrain.tuning.memory import FIGURES, REASON, SECONDS, Memory, check_same, identity
from certtrain.tuning.settings import Settings
from certtrain.tuning.space import Space

JSON, CSV = "search.json", "search.csv"
EXTREMES = {"maximize": "largest", "minimize": "smallest"}
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
_TEXT = 60


@dataclass(frozen=True)
class Row:
    """One trial.

    Attributes:
        number: From 0, in the order in which they began.
        state: complete, pruned, failed or running.
        best: Whether it keeps all constraints, and no other one that does is better in everything.
        feasible: Whether it keeps all constraints; None where that is not known.
        values: Key -> what was chosen.
        figures: Key -> mean over the repetitions, objectives first; none without a result.
        reports: Epochs behind it -> the objective then; only where trials may be pruned.
        seconds: Of its jobs together; None where that is not known.
        reason: Why it was pruned, or failed.
        jobs: Their numbers.
    """

    number: int
    state: str
    best: bool
    feasible: bool | None
    values: Mapping[str, Any]
    figures: Mapping[str, float]
    reports: Mapping[int, float]
    seconds: float | None
    reason: str | None
    jobs: tuple[int, ...]


class Results:
    """The trials of a study as people and scripts read them.

    Args:
        directory: Of the sweep; exists.
        settings: Of the search.
        space: Of the search.
        memory: Its study.
    """

    def __init__(self, directory: Path, settings: Settings, space: Space, memory: Memory) -> None:
        self.directory, self.settings, self.space, self.memory = directory, settings, space, memory

    @property
    def keys(self) -> list[str]:
        """Of the figures, objectives first."""
        return list(self.settings.figures)

    def rows(self) -> list[Row]:
        """All trials that have begun."""
        best = {trial.number for trial in self.memory.best()}
        repetitions = len(self.space.repetitions)
        found = []
        for trial in self.memory.trials:
            figures, violations = trial.user_attrs.get(FIGURES, {}), trial.user_attrs.get(VIOLATIONS)
            found.append(
                Row(
                    number=trial.number,
                    state=STATES[trial.state.name],
                    best=trial.number in best,
                    feasible=None if violations is None else all(v <= 0 for v in violations),
                    values=dict(trial.params),
                    figures={key: figures[key] for key in self.keys if key in figures},
                    reports=dict(trial.intermediate_values),
                    seconds=trial.user_attrs.get(SECONDS),
                    reason=trial.user_attrs.get(REASON),
                    jobs=tuple(range(trial.number * repetitions, (trial.number + 1) * repetitions)),
                )
            )
        return found

    def last_reason(self) -> str | None:
        """Why the last trial without a result has none."""
        return next((row.reason for row in reversed(self.rows()) if row.reason), None)

    def write(self) -> None:
        """Replaces both files."""
        rows = self.rows()
        text = json.dumps(self._record(rows), indent=1, allow_nan=False, ensure_ascii=False, default=str)
        with replacing(self.directory / JSON) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
        keys = [parameter.key for parameter in self.space.parameters]
        with replacing(self.directory / CSV) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["trial", "state", "best", "feasible", *keys, *self.keys, "seconds", "jobs", "reason"])
            for row in rows:
                chosen = [row.values.get(key, "") for key in keys]
                figures = [row.figures.get(key, "") for key in self.keys]
                jobs = " ".join(map(str, row.jobs))
                writer.writerow(
                    [row.number, row.state, row.best, row.feasible, *chosen, *figures, row.seconds, jobs, row.reason]
                )

    def show(self, console: Console) -> None:
        """Prints the best trials, and how many there were."""
        rows = self.rows()
        counts = {state: sum(row.state == state for row in rows) for state in STATES.values()}
        words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        title = f"[bold]search {escape(str(self.directory))}[/]"
        console.print(f"{title}\n{len(rows)} trials: {words}", highlight=False, soft_wrap=True)
        for row in rows:
            if row.state == "failed" and row.reason:
                console.print(f"trial {row.number} failed: {escape(row.reason)}", highlight=False, soft_wrap=True)
        best = [row for row in rows if row.best]
        if best:
            console.print(self._table(best))
            console.print("Chosen by validation images; test images of their runs say how good they are.")
        elif counts["complete"]:
            console.print(f"no trial keeps {' and '.join(map(str, self.settings.constraints))}", style="yellow")

    def _table(self, best: list[Row]) -> Table:
        several = len(self.settings.objectives) > 1
        title = (
            "trials that no other one beats (Pareto front)"
            if several
            else f"{EXTREMES[self.settings.objectives[0].direction]} {self.settings.objectives[0].key}"
        )
        table = Table(title=title, title_justify="left")
        table.add_column("trial", justify="right")
        for key in self.keys:
            table.add_column(_heading(key), justify="right", overflow="fold")
        table.add_column("chosen", overflow="fold", ratio=1)
        table.add_column("jobs", overflow="fold")
        objective = self.settings.objectives[0]
        sign = -1 if objective.direction == "maximize" else 1
        for row in sorted(best, key=lambda row: sign * row.figures[objective.key]):
            chosen = "\n".join(f"{key}={_short(value)}" for key, value in row.values.items())
            figures = [shown(key, row.figures[key]) for key in self.keys]
            table.add_row(str(row.number), *figures, Text(chosen), ",".join(map(str, row.jobs)))
        return table

    def _record(self, rows: list[Row]) -> dict[str, Any]:
        return {
            "search": identity(self.settings, self.space),
            "objectives": [{"key": o.key, "direction": o.direction} for o in self.settings.objectives],
            "constraints": [str(constraint) for constraint in self.settings.constraints],
            "sampler": dict(self.settings.sampler),
            "pruner": dict(self.settings.pruner),
            "n_trials": self.settings.n_trials,
            "images": "validation" if self.settings.needs_validation else None,
            "trials": [
                {
                    "trial": row.number,
                    "state": row.state,
                    "best": row.best,
                    "feasible": row.feasible,
                    "values": dict(row.values),
                    "figures": dict(row.figures),
                    "reports": {str(epoch): value for epoch, value in row.reports.items() if math.isfinite(value)},
                    "seconds": row.seconds,
                    "reason": row.reason,
                    "jobs": list(row.jobs),
                }
                for row in rows
            ],
        }


def shown(key: str, value: float) -> str:
    """A figure for people: accuracies in percent, times as a clock has them."""
    if key.endswith("accuracy"):
        return f"{100 * value:.2f} %"
    return duration(value) if key.endswith("seconds") else f"{value:.4g}"


def check_continues(directory: Path, settings: Settings, space: Space) -> None:
    """Refuses a directory that holds anything but an earlier part of the same search.

    Args:
        directory: hydra.sweep.dir.
        settings: Of the search.
        space: Of the search.

    Raises:
        ConfigError: One line about what is in the way.
    """
    if not directory.exists():
        return
    if not directory.is_dir() or (any(directory.iterdir()) and not (directory / JSON).is_file()):
        raise ConfigError(f"{directory} exists and holds no search: choose another hydra.sweep.dir")
    if not (directory / JSON).is_file():
        return
    try:
        known = json.loads((directory / JSON).read_text(encoding="utf-8"))["search"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise ConfigError(f"{directory / JSON} is no record of a search: choose another hydra.sweep.dir") from error
    check_same(known, identity(settings, space))


def _heading(key: str) -> str:
    return key.replace("_accuracy", "").replace("val/", "val ").replace("train/", "train ").replace("_", " ")


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _TEXT else f"{text[:_TEXT]}..."
