"""One run: train, keep the best checkpoint, certify the test images, leave the record."""

from __future__ import annotations

import signal
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.console import Console

from certtrain.certify import Attack, Verdict, certify, summarize
from certtrain.cli.assemble import make_data, make_network, make_training
from certtrain.cli.lock import locked
from certtrain.cli.rundir import RunDirectory
from certtrain.cli.schema import RunConfig, parse, plain
from certtrain.data.batches import as_float
from certtrain.data.module import ImageData
from certtrain.errors import CerttrainError
from certtrain.report import certification_progress, print_verdict, write_report, write_summary
from certtrain.training.checkpoints import AtomicCheckpointIO, load_network
from certtrain.training.metrics import JsonlLogger, drop_rows
from certtrain.training.module import CertifiedTraining
from certtrain.training.progress import progress_callback
from certtrain.training.stopping import Stopped, StopRequest, signal_numbers
from certtrain.training.survival import BEST, LAST, MONITOR, Survival, newest, reached_step

Record = dict[str, Any]


def run(composed: DictConfig) -> float | None:
    """Runs one job in the directory that Hydra made for it.

    Returns:
        The certified accuracy on the test images, for sweepers that optimise; None if nothing was certified.

    Raises:
        CerttrainError: If the run cannot go on; what it wrote so far stays.
    """
    node = plain(composed)
    config = parse(node)
    directory = Path(HydraConfig.get().runtime.output_dir)
    console = Console()
    with ExitStack() as stack:
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            stack.enter_context(locked(directory))
            RunDirectory(directory).write_configuration(node)
        request = stack.enter_context(StopRequest(signal_numbers(config.preemption.signals)).listening())
        stack.enter_context(_quiet_libraries())
        try:
            with _loggers(config, node, directory) as loggers:
                start = newest(directory / "checkpoints")
                record = Job(config, directory, console, request, start).run(loggers)
                for logger in loggers:
                    if isinstance(logger, WandbLogger):
                        logger.experiment.summary.update(record)
        except Stopped as stop:
            console.print(f"{stop}: the same command, or resume={directory}, goes on", highlight=False, soft_wrap=True)
            if stop.signal is signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(config.preemption.exit_code) from None
    return record.get("certified_accuracy")


class Job:
    """The parts of one run and the order they are used in.

    Args:
        config: What to run.
        directory: The run directory; exists.
        console: Where people read.
        request: Who may ask the run to stop.
        start: The checkpoint that training goes on from; None begins at the first generation.
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
        self.survival = Survival(directory / "checkpoints", config.checkpoint.every_generations, request)

    def run(self, loggers: list[Logger]) -> Record:
        """Trains, certifies if asked to, and returns what stands in summary.json."""
        config, console = self.config, self.console
        console.print(
            f"[bold]{config.method}[/] with [bold]{config.relaxation.name}[/] bounds on {config.data.name}, "
            f"eps {config.eps:g}, seed {config.seed}\n{self.directory}",
            highlight=False,
        )
        if self.start is not None:
            console.print(f"goes on from step {reached_step(self.start)} (resume=never begins anew)", highlight=False)
        pl.seed_everything(config.seed % 2**32, verbose=False)
        data = make_data(config)
        data.setup()
        network, graph = make_network(config, data.source)
        training = make_training(config, network, graph)
        checkpoint = self._fit(training, data, loggers)
        train_seconds = self.survival.seconds
        load_network(network, checkpoint)
        verdicts, certify_seconds = self._certify(network, data) if config.certify.enabled else ([], None)
        parameters = sum(p.numel() for p in network.parameters())
        return self._conclude(verdicts, train_seconds, certify_seconds, parameters, checkpoint)

    def _trainer(self, loggers: list[Logger], callbacks: list[Callback]) -> pl.Trainer:
        options = self.config.trainer
        return pl.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            max_epochs=options.max_epochs,
            max_steps=options.max_steps,
            check_val_every_n_epoch=options.validate_every,
            log_every_n_steps=options.log_every_n_steps,
            logger=loggers,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=self.console.is_terminal,
            use_distributed_sampler=False,
            default_root_dir=self.directory,
        )

    def _fit(self, training: CertifiedTraining, data: ImageData, loggers: list[Logger]) -> Path:
        """Trains and returns the checkpoint to judge."""
        trainer = self._trainer(loggers, [self.survival, progress_callback(self.console)])
        drop_rows(self.directory / "metrics.jsonl", 0 if self.start is None else reached_step(self.start))
        try:
            trainer.fit(training, data, ckpt_path=self.start)
        except CerttrainError as error:
            raise type(error)(f"{error}; {self._kept(trainer.global_step)}") from error
        reached = training.objective.eps(trainer.global_step / trainer.num_training_batches)
        if reached < self.config.eps:
            self.console.print(
                f"note: training ended at eps {reached:g}, below {self.config.eps:g}: "
                "train longer or shorten schedule.eps.warmup and schedule.eps.ramp",
                style="yellow",
            )
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
            logger.log_metrics({**found, "epoch": step // int(trainer.num_training_batches)}, step=step)
        return last if self.survival.best is None or found[MONITOR] > self.survival.best else best

    def _certify(self, network: torch.nn.Module, data: ImageData) -> tuple[list[Verdict], float]:
        options = self.config.certify
        test = data.splits.test
        inputs, labels = test.inputs[: options.limit], test.labels[: options.limit]
        started = time.perf_counter()
        with certification_progress(self.console, len(inputs)) as progress:
            verdicts = certify(
                network.cpu(),
                as_float(inputs),
                labels,
                self.config.eps,
                relaxations=options.verifiers,
                clip=self.config.clip,
                attack=Attack(steps=options.attack.steps, restarts=options.attack.restarts, seed=self.config.seed),
                timeout_s=options.timeout_s,
                memory_mb=options.memory_mb,
                ledger=self.directory / "ledger.jsonl",
                progress=progress,
            )
        return verdicts, time.perf_counter() - started

    def _conclude(
        self,
        verdicts: list[Verdict],
        train_seconds: float,
        certify_seconds: float | None,
        parameters: int,
        checkpoint: Path,
    ) -> Record:
        config = self.config
        result = summarize(verdicts, config.certify.verifiers) if verdicts else {}
        record = write_summary(
            self.directory / "summary.json",
            result=result,
            train_seconds=train_seconds,
            certify_seconds=certify_seconds,
            parameters=parameters,
            relaxation=config.relaxation.name,
            backend=config.relaxation.backend,
            relaxation_options=config.relaxation.options,
            method=config.method,
            eps=config.eps,
            seed=config.seed,
        )
        write_report(self.directory)
        if verdicts:
            print_verdict(self.console, record)
        self.console.print(
            f"trained in {train_seconds:.1f} s"
            + (f", certified in {certify_seconds:.1f} s" if certify_seconds is not None else "")
            + f"; judged {checkpoint.name}\nreport: {self.directory / 'report.html'}",
            highlight=False,
        )
        return record


@contextmanager
def _loggers(config: RunConfig, node: Record, directory: Path) -> Iterator[list[Logger]]:
    """metrics.jsonl always, W&B on request; a W&B run is finished with this job, as failed if the job failed."""
    loggers: list[Logger] = [JsonlLogger(directory / "metrics.jsonl")]
    if config.logger.name == "local":
        yield loggers
        return
    import wandb

    # Written before anything is logged, so that whoever resumes this directory finds the same W&B run.
    known = directory / "wandb_id.txt"
    if not known.is_file():
        known.write_text(uuid.uuid4().hex[:8] + "\n", encoding="utf-8")
    run_id = known.read_text(encoding="utf-8").strip()
    group = config.logger.group or directory.parent.name
    view = WandbLogger(
        project=config.logger.project, save_dir=directory, id=run_id, group=group, config=node, name=_title(config)
    )
    exit_code = 1
    try:
        yield [*loggers, view]
        exit_code = 0
    finally:
        wandb.finish(exit_code=exit_code)


def _title(config: RunConfig) -> str:
    parts = [config.data.name, config.method, config.relaxation.name, f"eps{config.eps:g}", f"seed{config.seed}"]
    return "-".join(parts)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hides notices that no user of certtrain can act on."""
    with warnings.catch_warnings():
        for notice in (
            r".*does not have many workers.*",
            r".*The number of training batches.*is smaller than the logging interval.*",
            r".*Checkpoint directory .* exists and is not empty.*",
            r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
            r".*GPU available but not used.*",
            r".*your dataloader is not resumable.*",  # `Survival` moves the sampler
        ):
            warnings.filterwarnings("ignore", notice)
        yield
