"""What was measured of a run goes where its other results are: its report, and W&B if it logs there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from certtrain.cli.job.views import bring_up_to_date
from certtrain.cli.trained.measured import Measured
from certtrain.report import write_report


def publish(console: Console, measured: Measured, written: Sequence[Path]) -> None:
    """Writes the report anew, hands pictures to W&B, and says where everything is.

    Args:
        console: Where people read.
        measured: The run.
        written: Files below its directory.
    """
    report = write_report(measured.directory)
    bring_up_to_date(measured.config, measured.node, measured.directory)
    console.print(
        f"written: {' '.join(map(str, written))}\nreport: {report}", markup=False, highlight=False, soft_wrap=True
    )
