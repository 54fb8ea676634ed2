"""metrics.jsonl as columns: the record of training, read for plots."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certtrain.errors import DataError


@dataclass(frozen=True)
class Series:
    """One quantity over training.

    Attributes:
        steps: Optimizer steps (generations), in the order logged.
        values: As many numbers; NaN where what was logged is not finite.
    """

    steps: tuple[float, ...]
    values: tuple[float, ...]


def read_metrics(path: str | os.PathLike[str]) -> dict[str, Series]:
    """Every quantity that was logged, by its key; nothing if there is no such file.

    A last line that is not complete is dropped. After a resume the same step may be logged twice: the later
    one counts.

    Raises:
        DataError: If the file is no text, or any other line no JSON object with a finite number under "step".
    """
    file = Path(path)
    if not file.is_file():
        return {}
    found: dict[str, dict[float, float]] = {}
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no text: {error}") from error
    for number, line in enumerate(lines[:-1], start=1):
        row = _row(file, number, line)
        for key, value in row.items():
            if key != "step" and (value is None or isinstance(value, (int, float))):
                found.setdefault(key, {})[float(row["step"])] = _number(value)
    return {key: _series(points) for key, points in found.items()}


def read_rows(path: str | os.PathLike[str]) -> list[tuple[int, dict[str, float]]]:
    """The same by step, in ascending order: what was logged of a step, in one row.

    Raises:
        DataError: See `read_metrics`.
    """
    rows: dict[int, dict[str, float]] = {}
    for key, series in read_metrics(path).items():
        for step, value in zip(series.steps, series.values, strict=True):
            rows.setdefault(int(step), {})[key] = value
    return sorted(rows.items(), key=lambda row: row[0])


def _row(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path} line {number} is no JSON: {error}") from error
    step = row.get("step") if isinstance(row, dict) else None
    if not isinstance(step, (int, float)) or not math.isfinite(step):
        raise DataError(f'{path} line {number} has no number under "step"')
    return row


def _number(value: float | None) -> float:
    return float(value) if value is not None and math.isfinite(value) else math.nan


def _series(points: Mapping[float, float]) -> Series:
    steps = sorted(points)
    return Series(tuple(steps), tuple(points[s] for s in steps))


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean of the `width` values around each one, fewer at the ends; NaNs are left out."""
    means = []
    for i in range(len(values)):
        near = [v for v in values[max(0, i - width // 2) : i + width // 2 + 1] if not math.isnan(v)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means
