"""One run, read from its directory."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from certtrain.certify import read_ledger
from certtrain.cli.rundir.code import find_code
from certtrain.cli.rundir.directory import CONFIG, RunDirectory
from certtrain.earlier import completed
from certtrain.errors import DataError
from certtrain.report.certifications import FOLDER
from certtrain.report.summary import accuracies_of, read_summary
from certtrain.runs.frames import certifications_frame, ledger_frame, metrics_frame
from certtrain.runs.state import state_of

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from torch import nn

METRICS, LEDGER, SUMMARY = "metrics.jsonl", "ledger.jsonl", "summary.json"


@dataclass(frozen=True, repr=False)
class Run:
    """A run directory, read when it is asked; what was read is kept, so that `load` again sees what is new.

    Attributes:
        directory: Where the run is.
    """

    directory: Path

    @staticmethod
    def load(directory: str | os.PathLike[str]) -> Run:
        """Finds a run, finished or not, or a certification of one.

        Raises:
            DataError: If there is none; one line.
        """
        path = Path(directory).expanduser()
        if not path.is_dir():
            raise DataError(f"there is no run directory {path}")
        if not any((path / name).is_file() for name in (CONFIG, SUMMARY)):
            below = any(path.glob(f"**/{CONFIG}"))
            raise DataError(
                f"{path} is no run directory: it has no {CONFIG}"
                + (f'; certtrain.runs("{path}/**") lists the runs below it' if below else "")
            )
        return Run(path)

    @property
    def state(self) -> str:
        """How far it is: finished, failed, interrupted, running or damaged; see `certtrain.runs.state.State`."""
        return state_of(self.directory).name

    @property
    def reason(self) -> str:
        """Why it is no further, in one line; "" if it has finished, or nothing is known."""
        return state_of(self.directory).reason

    @cached_property
    def config(self) -> DictConfig:
        """The resolved configuration, read-only: `run.config.pgpe.sigma`, `run.config["eps"]`.

        Raises:
            DataError: If it cannot be read.
        """
        config = OmegaConf.create(self._node())
        OmegaConf.set_readonly(config, True)
        return config

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What stands in summary.json; empty while the run has not finished.

        Raises:
            DataError: If it cannot be read.
        """
        path = self.directory / SUMMARY
        return read_summary(path) if path.is_file() else {}

    @cached_property
    def metrics(self) -> pandas.DataFrame:
        """The record of training by step: see `certtrain.runs.frames.metrics_frame`."""
        return metrics_frame(self.directory / METRICS)

    @cached_property
    def ledger(self) -> pandas.DataFrame:
        """The verdicts by image: see `certtrain.runs.frames.ledger_frame`."""
        return ledger_frame(self.directory / LEDGER)

    @cached_property
    def certifications(self) -> pandas.DataFrame:
        """What was certified afterwards, by name: see `certtrain.runs.frames.certifications_frame`."""
        return certifications_frame(self.directory / FOLDER)

    @cached_property
    def network(self) -> nn.Module:
        """The network with the weights that the run judged, in eval mode, on the CPU.

        It takes images [batch, channels, height, width] with pixels in [0, 1]. Warns if the code of an own network is
        no longer what it was when the run began.

        Raises:
            CerttrainError: If there is no checkpoint, or the network cannot be built; one line.
        """
        from certtrain.cli.assembly.data import make_source
        from certtrain.cli.configuration.schema import parse
        from certtrain.cli.trained.target import find_target

        for line in find_code(self.directory):
            warnings.warn(line, stacklevel=2)
        config = parse(completed(self._node()))
        return find_target(self.directory, []).network(config, make_source(config)).eval()

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The pictures of its report, as far as there is something to draw: `curves` and `margins`.

        A notebook shows one that ends a cell; `run.figures["curves"].savefig("curves.pdf")` writes it.
        """
        from certtrain.report.curves import draw_curves
        from certtrain.report.margins import draw_margins
        from certtrain.report.metrics import read_metrics

        drawn = {
            "curves": draw_curves(read_metrics(self.directory / METRICS), self.title),
            "margins": draw_margins(read_ledger(self.directory / LEDGER), self.title),
        }
        return {name: figure for name, figure in drawn.items() if figure is not None}

    @property
    def title(self) -> str:
        """What trained it, and how."""
        from certtrain.report.rows import recorded_title, title_of

        return recorded_title(self.summary) if self.summary else title_of(self._node())

    def _node(self) -> dict[str, Any]:
        node = RunDirectory(self.directory).configuration()
        if node is None:
            raise DataError(f"{self.directory / CONFIG} is missing or cannot be read")
        return node

    def __repr__(self) -> str:
        try:
            said = [self.state, self.title, accuracies_of(self.summary)]
        except Exception as error:  # a damaged record still has a name
            said = ["damaged", str(error)]
        return f"<Run {self.directory}: {', '.join(filter(None, said))}>"
