"""The parts of one run and the order they are used in: train, keep the best checkpoint, certify, leave the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers.logger import Logger
from rich.console import Console
from rich.markup import escape

from certtrain.cli.assembly import handover
from certtrain.cli.assembly.data import make_data
from certtrain.cli.assembly.estimator import make_layout, make_ranks, make_warm_start
from certtrain.cli.assembly.network import begin_from_checkpoint, make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration.schema import RunConfig
from certtrain.cli.job import cluster
from certtrain.cli.job.conclusion import Trained, conclude
from certtrain.cli.process.heartbeat import Heartbeat
from certtrain.data.module import ImageData
from certtrain.data.source import Splits
from certtrain.errors import CerttrainError
from certtrain.gradients import Distributed
from certtrain.gradients.distributed import noticing_lost_peers
from certtrain.report.rows import title_of
from certtrain.training.checkpoints import AtomicCheckpointIO
from certtrain.training.metrics import drop_rows
from certtrain.training.module import CertifiedTraining
from certtrain.training.patience import Patience
from certtrain.training.progress import progress_callback
from certtrain.training.replicas import CommunicationReport, Replicas, SameParameters
from certtrain.training.schedules import short_of
from certtrain.training.stopping import StopRequest
from certtrain.training.survival import BEST, LAST, MONITOR, Survival, reached_step

Record = dict[str, Any]


class Job:
    """The parts of one run and the order they are used in.

    Args:
        config: What to run.
        directory: The run directory; exists.
        console: Where people read.
        request: Who may ask the run to stop.
        start: The checkpoint that training goes on from; None begins at the first generation.

    Attributes:
        splits: The data, once they are read.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: Path,
        console: Console,
        request: StopRequest = StopRequest(),  # noqa: B008  (listens to nothing)
        start: Path | None = None,
    ) -> None:
        self.config = config
        self.directory = directory
        self.console = console
        self.start = start
        self.splits: Splits | None = None
        self.heartbeat = Heartbeat(console)
        self.validated_by: str | None = None
        self.survival = Survival(directory / "checkpoints", config.checkpoint.every_generations, request)

    def run(self, loggers: list[Logger]) -> Record:
        """Trains, certifies if asked to, and returns what stands in summary.json.

        Ranks other than the first one are done after the training and return nothing.
        """
        config, console = self.config, self.console
        heading = title_of(config.model_dump(mode="json", exclude_unset=True))
        console.print(f"[bold]{escape(heading)}[/]\n{escape(str(self.directory))}", highlight=False, soft_wrap=True)
        if self.start is not None:
            begun = f"goes on from step {reached_step(self.start)} (resume=never begins anew)"
            console.print(begun, highlight=False, soft_wrap=True)
        pl.seed_everything(config.seed % 2**32, verbose=False)
        data = make_data(config)
        handover.forget()
        with self.heartbeat.during("reading the data"):
            data.setup()
        self.splits = data.splits
        # A terminal would break lines anywhere, rich breaks them between words; in a pipe they stay whole.
        console.print("\n".join(data.describe()), highlight=False, markup=False, soft_wrap=not console.is_terminal)
        network, graph = make_network(config, data.source)
        if self.start is None:
            begin_from_checkpoint(config, network)
        ranks = make_ranks(config, make_layout(config))
        training = make_training(config, network, graph, ranks, make_warm_start(config))
        with noticing_lost_peers(ranks), self.heartbeat.during(lambda: training.doing):
            checkpoint = self._fit(training, data, loggers)
        train_seconds = self.survival.seconds
        cluster.leave()
        if ranks.rank > 0:
            return {}
        trained = Trained(network, checkpoint, train_seconds, training.trainer.strategy.root_device, self.validated_by)
        return conclude(config, trained, data, self.directory, console, self.heartbeat)

    def _trainer(self, loggers: list[Logger], callbacks: list[Callback]) -> pl.Trainer:
        options = self.config.trainer
        environment = cluster.detect()
        return pl.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            max_epochs=options.max_epochs,
            max_steps=options.max_steps,
            check_val_every_n_epoch=options.validate_every,
            log_every_n_steps=options.log_every_n_steps,
            logger=loggers,
            callbacks=callbacks,
            num_nodes=options.num_nodes,
            strategy=Replicas() if environment else "auto",
            plugins=[AtomicCheckpointIO(), *([environment] if environment else [])],
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,  # ours is a callback like others
            use_distributed_sampler=False,
            inference_mode=False,  # a loss may attack what it is validated on, by gradients
            # A warm start may have batches of another size: the loader is made anew when it is over, which a resumed
            # run may be at any time.
            reload_dataloaders_every_n_epochs=1 if self.config.warm_start.epochs else 0,
            default_root_dir=self.directory,
        )

    def _fit(self, training: CertifiedTraining, data: ImageData, loggers: list[Logger]) -> Path:
        """Trains and returns the checkpoint to judge."""
        callbacks: list[Callback] = [
            self.survival,
            Patience(self.config.stop.patience),
            progress_callback(self.console),
        ]
        if isinstance(training.ranks, Distributed):
            every = self.config.checkpoint.every_generations
            callbacks += [SameParameters(every), CommunicationReport(training.ranks)]
        trainer, validation = self._trainer(loggers, callbacks), training.objective.validation
        if len(data.validation_rows):
            self.validated_by = validation.name
            if validation.relaxation is not None:
                self.console.print(f"held-out images are certified {validation}", highlight=False, soft_wrap=True)
        if training.ranks.rank == 0:
            drop_rows(self.directory / "metrics.jsonl", 0 if self.start is None else reached_step(self.start))
        try:
            trainer.fit(training, data, ckpt_path=self.start)
        except CerttrainError as error:
            raise type(error)(f"{error}; {self._kept(trainer.global_step)}") from error
        # The last step that was taken, not the next one: a ramp that jumps at the end was never trained on.
        last = training.phases.epoch(max(trainer.global_step - 1, 0))
        if (note := short_of(training.objective.eps, last, self.config.eps)) is not None:
            self.console.print(note, style="yellow", soft_wrap=not self.console.is_terminal)
        return self._choose(trainer, training, data, loggers)

    def _kept(self, failed: int) -> str:
        """Which checkpoint holds weights whose loss was a number; the one of the failed step itself does not."""
        directory = self.directory / "checkpoints"
        steps = {path: reached_step(path) for path in (directory / LAST, directory / BEST) if path.is_file()}
        good = {path: step for path, step in steps.items() if step < failed}
        if not good:
            return "no checkpoint is older than this step"
        path = max(good, key=good.__getitem__)
        return f"the last good checkpoint is {path} (step {good[path]})"

    def _choose(self, trainer: pl.Trainer, training: CertifiedTraining, data: ImageData, loggers: list[Logger]) -> Path:
        """The best checkpoint; weights that max_steps left behind since the last validation are judged now."""
        best, last = self.directory / "checkpoints" / BEST, self.directory / "checkpoints" / LAST
        if not len(data.validation_rows):
            return last
        if training.validated_step == trainer.global_step:
            return best
        trainer.loggers = []  # they would get this row with the step and the epoch of no generation
        (found,) = trainer.validate(training, data, verbose=False)
        step = trainer.global_step
        for logger in loggers:
            logger.log_metrics({**found, "epoch": training.phases.place(step - 1)[0]}, step=step)
        return last if self.survival.best is None or found[MONITOR] > self.survival.best else best
