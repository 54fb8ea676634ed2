"""Views that are files below the run directory, brought up to the record before a run goes on."""

from __future__ import annotations

import warnings
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from certtrain.report.metrics import read_rows


def csv_view(directory: Path, folder: str, step: int) -> CSVLogger:
    """metrics.csv, which begins with the rows of metrics.jsonl before a step.

    The file is written anew: what a killed run had in it beyond its checkpoint is no part of the run.

    Args:
        directory: Of the run.
        folder: Below it.
        step: That the run goes on from; 0 for one that begins.
    """
    view = CSVLogger(str(directory), name=folder, version="", flush_logs_every_n_steps=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*Experiment logs directory .* exists and is not empty.*")
        view.experiment  # noqa: B018  (removes the old file)
    for known, row in read_rows(directory / "metrics.jsonl"):
        if known < step:
            view.log_metrics(dict(row), step=known)
    return view


def tensorboard_view(directory: Path, folder: str, step: int) -> TensorBoardLogger:
    """Event files; of those that are there, TensorBoard shows nothing from a step on.

    Args:
        directory: Of the run.
        folder: Below it.
        step: That the run goes on from; 0 for one that begins.
    """
    return TensorBoardLogger(str(directory), name=folder, version="", purge_step=step)
