"""What a run has reached, read from its record: the figures that a search compares.

A search looks at validation images and at costs. What the test images say is for the report: whoever chooses by it no
longer knows how good the choice is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from certtrain.errors import CerttrainError, ConfigError
from certtrain.report.metrics import Series, read_metrics
from certtrain.report.summary import ACCURACIES, read_summary

METRICS, SUMMARY = "metrics.jsonl", "summary.json"
# By this one the weights are chosen that a run is judged by.
MONITOR = "val/certified_accuracy"
# What summary.json says of a run beside its test images.
COSTS = ("train_seconds", "certify_seconds", "parameters")
# Beginnings of what it says about them.
OF_TEST = (*ACCURACIES, "statuses", "verifiers", "unaveraged", "test/")


class NoFigure(CerttrainError):
    """A run has not got a figure that it is compared by."""


def check_key(option: str, key: str) -> None:
    """Refuses a figure that a search must not, or cannot, go by.

    Args:
        option: The option of the sweeper that names it.
        key: The name.

    Raises:
        ConfigError: One line that says what would be right.
    """
    where = f"hydra.sweeper.{option}"
    if key.startswith(OF_TEST):
        name = key.split(".")[0]
        better = f"val/{name}" if name in ("natural_accuracy", "certified_accuracy") else MONITOR
        raise ConfigError(f"{where}: {key} is a figure of the test images; nothing is tuned on them: take {better}")
    if key not in COSTS and not key.startswith(("val/", "train/")):
        raise ConfigError(f"{where}: unknown figure '{key}': possible are val/..., train/..., {', '.join(COSTS)}")


def figures_of(directory: Path, keys: Sequence[str]) -> dict[str, float]:
    """Figures of a finished run, by key.

    A logged one is that of the weights that the run is judged by: the last one up to the validation that chose them.

    Args:
        directory: The run directory.
        keys: Which.

    Raises:
        CerttrainError: If one is missing or not finite, or the record is damaged.
    """
    metrics = read_metrics(directory / METRICS)
    chosen = _chosen_step(metrics.get(MONITOR))
    summary = read_summary(directory / SUMMARY)
    return {key: _figure(directory, key, metrics, chosen, summary) for key in keys}


def mean(repetitions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every figure over repetitions, which all have the same."""
    return {key: math.fsum(one[key] for one in repetitions) / len(repetitions) for key in repetitions[0]}


def _chosen_step(monitor: Series | None) -> float:
    """The first of the best validations, as `Survival` has it; the end where nothing was validated."""
    finite = [] if monitor is None else [(-v, s) for s, v in zip(monitor.steps, monitor.values, strict=True) if v == v]
    return min(finite)[1] if finite else math.inf


def _figure(
    directory: Path, key: str, metrics: Mapping[str, Series], chosen: float, summary: Mapping[str, Any]
) -> float:
    if key in COSTS:
        value = summary.get(key)
    elif key in metrics:
        series = metrics[key]
        until = [v for s, v in zip(series.steps, series.values, strict=True) if s <= chosen]
        value = (until or series.values)[-1]
    else:
        logged = ", ".join(sorted(name for name in metrics if "/" in name)) or "nothing"
        raise NoFigure(f"{directory / METRICS} has no {key}; it has {logged}")
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise NoFigure(f"{directory}: {key} is {'missing' if value is None else value}")
    return float(value)
