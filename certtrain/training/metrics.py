"""metrics.jsonl: the local record of a run, one JSON object per logged step."""

from __future__ import annotations

import json
import math
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from certtrain.errors import DataError
from certtrain.files import naming


class JsonlLogger(Logger):
    """Appends {"step": ..., **metrics} lines; the step axis is the number of optimizer steps (generations).

    A number that is not finite is written as null: JSON has no other word for it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """Name of the record."""
        return "metrics"

    @property
    def version(self) -> str:
        """There is one per run directory."""
        return "0"

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The configuration is a file of its own in the run directory."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends one line."""
        row = {k: v if math.isfinite(v) else None for k, v in ((k, float(v)) for k, v in metrics.items())}
        if "epoch" in row:
            row["epoch"] = int(row["epoch"] or 0)
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")


def drop_rows(path: Path, step: int) -> None:
    """Cuts the record to what a run that goes on after `step` optimizer steps has behind it.

    Rows from `step` on are removed, because they will be written again, and so is a last line that is not complete.

    Raises:
        DataError: If a row that stays is none. Nothing is removed then.
    """
    if not path.is_file():
        return
    kept = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n") or _step(path, number, line) >= step:
                break
            kept += len(line)
    os.truncate(path, kept)


def _step(path: Path, number: int, line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged: line {number} is no row of a record; without this line the run goes on, "
            "resume=never begins a new one"
        ) from error
