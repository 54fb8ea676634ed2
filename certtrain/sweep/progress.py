"""How far a job is, told by what it has logged: metrics.jsonl grows while it trains, wherever it runs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from certtrain.sweep.jobs import METRICS, Job
from certtrain.sweep.lines import Lines

VALIDATED = "val/certified_accuracy"


@dataclass
class Progress:
    """Follows one job.

    Attributes:
        job: Which.
        fraction: Of its training that is behind it, from 0 to 1.
        validated: Best certified accuracy on validation images so far, a fraction of 1; None before the first.
        reports: All validations: epochs behind it -> what was logged, by key.
    """

    job: Job
    fraction: float = 0.0
    validated: float | None = None
    reports: dict[int, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lines = Lines(self.job.directory / METRICS)
        self._steps_per_epoch = math.inf

    def look(self) -> None:
        """Reads what has been logged since."""
        try:
            self._lines.pass_on(self._row)
        except OSError:
            return  # of a file system that is late; the next look will tell

    def _row(self, line: str) -> None:
        try:
            row = json.loads(line)
            step, epochs = int(row["step"]), int(row.get("epoch", 0))
        except (ValueError, TypeError, LookupError, RecursionError):
            return  # whoever needs the record will say that it is damaged
        if VALIDATED in row:
            epochs += 1
            self._validation(row, step, epochs)
        if self.job.epochs:
            inside = min(step / self._steps_per_epoch, epochs + 1) if self._steps_per_epoch < math.inf else 0.0
            self._reached(max(epochs, inside) / self.job.epochs)
        if self.job.steps and self.job.steps > 0:
            self._reached((step + 1) / self.job.steps)

    def _validation(self, row: dict[str, object], step: int, epochs: int) -> None:
        if step > 0:
            self._steps_per_epoch = step / epochs
        numbers = {k: float(v) for k, v in row.items() if isinstance(v, (int, float))}
        # What is not finite is null there; a search has to hear of it.
        self.reports[epochs] = {key: numbers.get(key, math.nan) for key in row}
        found = self.reports[epochs][VALIDATED]
        if found == found and (self.validated is None or found > self.validated):
            self.validated = found

    def _reached(self, fraction: float) -> None:
        self.fraction = max(self.fraction, min(1.0, fraction))
