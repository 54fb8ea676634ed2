"""What the files of one run say: its result, its configuration, its training record, and how it came to be."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certtrain.errors import DataError
from certtrain.nodes import flatten
from certtrain.report.metrics import Series, read_metrics
from certtrain.report.summary import read_summary
from certtrain.times import duration as told

Record = Mapping[str, Any]
LEDGER, METRICS, SUMMARY, CONFIG = "ledger.jsonl", "metrics.jsonl", "summary.json", "config.yaml"


@dataclass(frozen=True)
class Material:
    """One run.

    Attributes:
        directory: Its.
        record: What stands in summary.json; empty without one.
        config: Dotted key -> value of config.yaml; empty without one.
        series: Its training record; empty without one.
        trouble: A line for each file that is there and cannot be read.
    """

    directory: Path
    record: Record
    config: Mapping[str, Any]
    series: Mapping[str, Series]
    trouble: tuple[str, ...]

    @property
    def seed(self) -> Any:
        """Of the run."""
        return self.record.get("seed", self.config.get("seed"))

    @property
    def command(self) -> str | None:
        """The command line that made it; None where nothing says it."""
        said = self.record.get("command")
        if isinstance(said, str):
            return said
        if isinstance(said, (list, tuple)):
            return shlex.join(map(str, said))
        overrides = self.record.get("overrides")
        if overrides is None:
            overrides = _overrides(self.directory)
        return None if overrides is None else shlex.join(["python", "-m", "certtrain", *map(str, overrides)])

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the training; None where nothing was logged."""
        last = [found.steps[-1] for found in self.series.values() if found.steps]
        return int(max(last)) + 1 if last else None

    @property
    def evaluations(self) -> int | None:
        """Evaluations of the loss, each on a batch: the members of all populations, or one per plain gradient."""
        steps = self.steps
        if steps is None:
            return None
        plain = self._plain_steps(steps)
        return plain + (steps - plain) * _evaluations_per_step(self.config)

    def _plain_steps(self, steps: int) -> int:
        """Those of a warm start by plain gradients."""
        epochs, found = self.config.get("warm_start.epochs"), self.series.get("epoch")
        if not epochs or found is None:
            return 0
        warm = [step for step, epoch in zip(found.steps, found.values, strict=True) if epoch < epochs]
        return min(int(max(warm)) + 1, steps) if warm else 0


def read_material(directory: Path) -> Material:
    """Reads what can be read; nothing is refused."""
    trouble: list[str] = []
    record: Record = {}
    series: Mapping[str, Series] = {}
    config: Mapping[str, Any] = {}
    try:
        record = read_summary(directory / SUMMARY) if (directory / SUMMARY).is_file() else {}
    except DataError as error:
        trouble.append(str(error))
    try:
        series = read_metrics(directory / METRICS)
    except (DataError, OSError, UnicodeDecodeError) as error:
        trouble.append(str(error))
    try:
        config = dict(flatten(read_yaml(directory / CONFIG)))
    except DataError as error:
        trouble.append(str(error))
    # A result may hold a copy of what it is the result of.
    config = config or dict(flatten(record.get("config") or {}))
    return Material(directory, record, config, series, tuple(trouble))


def read_yaml(path: Path) -> Any:
    """What stands in a YAML file; None where there is none.

    Raises:
        DataError: If it is no YAML.
    """
    if not path.is_file():
        return None
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no YAML: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def duration(seconds: float | None) -> str:
    """Seconds for people: 12.3 s, 4 min 5 s, 3 h 20 min; a dash for none."""
    return "–" if seconds is None or not math.isfinite(seconds) else told(seconds)


def _overrides(directory: Path) -> list[str] | None:
    """What Hydra noted."""
    try:
        found = read_yaml(directory / ".hydra" / "overrides.yaml")
    except DataError:
        return None
    return [str(one) for one in found] if isinstance(found, list) else None


def _evaluations_per_step(config: Mapping[str, Any]) -> int:
    """Of the loss, by the estimator; a gradient counts as one."""

    def number(key: str, usual: int) -> int:
        found = config.get(key)
        return int(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else usual

    method = config.get("method")
    if method == "rgs":
        return number("rgs.samples", 1)
    if method == "pgpe":
        guess = {"gradient": 1, "rgs": number("pgpe.control_samples", 8)}.get(
            str(config.get("pgpe.control_variate")), 0
        )
        return number("pgpe.population_size", 1) + guess
    return 1
