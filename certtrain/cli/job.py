"""One run: train, keep the best checkpoint, certify the test images, leave the record."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, WandbLogger
from rich.console import Console
from rich.markup import escape

from certtrain.certify import Verdict, summarize
from certtrain.cli import cluster, handover
from certtrain.cli.assemble import (
    begin_from_checkpoint,
    make_data,
    make_layout,
    make_network,
    make_ranks,
    make_training,
    make_warm_start,
)
from certtrain.cli.certification import certify_test_images
from certtrain.cli.explain import as_typed
from certtrain.cli.heartbeat import Heartbeat
from certtrain.cli.logs import quiet_libraries, run_loggers
from certtrain.cli.pruning import ending_pruned
from certtrain.cli.rundir import RunDirectory
from certtrain.cli.schema import RunConfig, parse, plain
from certtrain.cli.supervisor import run_ranks
from certtrain.data.fingerprint import describe_data
from certtrain.data.module import ImageData
from certtrain.errors import CerttrainError
from certtrain.gradients import Distributed
from certtrain.gradients.distributed import noticing_lost_peers
from certtrain.lock import locked
from certtrain.report import accuracies_of, check_failures, print_verdict, write_report, write_summary
from certtrain.sweep.jobs import certified_accuracy
from certtrain.training.checkpoints import (
    AtomicCheckpointIO,
    is_averaged,
    load_network,
    load_state,
    unaveraged_state,
)
from certtrain.training.metrics import drop_rows
from certtrain.training.module import CertifiedTraining
from certtrain.training.patience import Patience
from certtrain.training.progress import progress_callback
from certtrain.training.replicas import CommunicationReport, Replicas, SameParameters
from certtrain.training.stopping import Stopped, StopRequest, signal_numbers
from certtrain.training.survival import BEST, LAST, MONITOR, Survival, newest, reached_step

Record = dict[str, Any]

UNAVERAGED_LEDGER = "ledger-unaveraged.jsonl"
# Number of the standard error.
STDERR = 2


def run(composed: DictConfig) -> float | None:
    """Runs one job in the directory that Hydra made for it: here, with other ranks that wait, or on ranks of its own.

    Returns:
        The certified accuracy on the test images, for sweepers that optimise; None if nothing was certified.

    Raises:
        CerttrainError: If the run cannot go on; what it wrote so far stays.
    """
    node = plain(composed)
    config = parse(node)
    directory = Path(HydraConfig.get().runtime.output_dir).absolute()
    with locked(directory):
        RunDirectory(directory).write_configuration(node)
        cluster.tell(cluster.Orders(node, directory))
        if config.trainer.ranks > 1 and not dist.is_initialized():
            handover.forget()  # the ranks are other processes
            run_ranks(directory, config.trainer.ranks, signal_numbers(config.preemption.signals))
            return certified_accuracy(directory)
        return run_in(directory, node).get("certified_accuracy")


def run_in(directory: Path, node: Record) -> Record:
    """Runs a resolved configuration in this process: the whole run, or what one of its ranks has to do.

    Args:
        directory: The run directory; exists.
        node: The configuration.

    Returns:
        What stands in summary.json; nothing on ranks other than the first, and where its search had no use for it.

    Raises:
        CertificationFailed: If something failed on images that it was to judge; everything is written by then.
        KeyboardInterrupt: If Ctrl-C has stopped it.
        SystemExit: If another signal has; it goes on later.
    """
    config = parse(node)
    first = not dist.is_initialized() or dist.get_rank() == 0
    console = Console() if first else Console(quiet=True)
    request = StopRequest(signal_numbers(config.preemption.signals), _tell if first else lambda line: None)
    record: Record = {}
    with request.listening(), quiet_libraries():
        try:
            with ExitStack() as stack:
                loggers = stack.enter_context(run_loggers(config, node, directory)) if first else []
                stack.push(ending_pruned(directory, console, loggers))
                start = newest(directory / "checkpoints")
                record = Job(config, directory, console, request, start).run(loggers)
                for logger in loggers:
                    if isinstance(logger, WandbLogger):
                        logger.experiment.summary.update(record)
                check_failures(record)
        except Stopped as stop:
            again = as_typed("resume", str(directory))
            console.print(
                f"{stop}: the same command, or {again}, goes on", markup=False, highlight=False, soft_wrap=True
            )
            if stop.signal is signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(config.preemption.exit_code) from None
    return record


def _tell(line: str) -> None:
    """To the terminal past all buffers, which may be in use where a signal arrives."""
    with suppress(OSError):  # a terminal that is gone
        os.write(STDERR, f"certtrain: {line}\n".encode())


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
        self.heartbeat = Heartbeat(console)
        self.survival = Survival(directory / "checkpoints", config.checkpoint.every_generations, request)

    def run(self, loggers: list[Logger]) -> Record:
        """Trains, certifies if asked to, and returns what stands in summary.json.

        Ranks other than the first one are done after the training and return nothing.
        """
        config, console = self.config, self.console
        console.print(
            f"[bold]{config.method}[/] with [bold]{config.relaxation.name}[/] bounds on {config.data.name}, "
            f"eps {config.eps:g}, seed {config.seed}\n{escape(str(self.directory))}",
            highlight=False,
            soft_wrap=True,
        )
        if self.start is not None:
            console.print(f"goes on from step {reached_step(self.start)} (resume=never begins anew)", highlight=False)
        pl.seed_everything(config.seed % 2**32, verbose=False)
        data = make_data(config)
        handover.forget()
        with self.heartbeat.during("reading the data"):
            data.setup()
        console.print("\n".join(data.describe()), highlight=False, markup=False, soft_wrap=True)
        network, graph = make_network(config, data.source)
        begin_from_checkpoint(config, network)
        ranks = make_ranks(config, make_layout(config))
        training = make_training(config, network, graph, ranks, make_warm_start(config))
        with noticing_lost_peers(ranks), self.heartbeat.during(lambda: training.doing):
            checkpoint = self._fit(training, data, loggers)
        train_seconds = self.survival.seconds
        cluster.leave()
        if ranks.rank > 0:
            return {}
        load_network(network, checkpoint)
        with self.heartbeat.during("certifying"):
            device = training.trainer.strategy.root_device
            verdicts, certify_seconds = (
                # Lightning has put the network back on the CPU.
                certify_test_images(config, network, data.splits, self.directory, device, console)
                if config.certify.enabled
                else ([], None)
            )
            beside = self._certify_unaveraged(network, checkpoint, data, device)
        parameters = sum(p.numel() for p in network.parameters())
        facts = describe_data(data.source, data.splits, [verdict.index for verdict in verdicts])
        with self.heartbeat.during("writing the report"):
            return self._conclude(verdicts, train_seconds, certify_seconds, parameters, checkpoint, facts, beside)

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
            enable_progress_bar=self.console.is_terminal,
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
        trainer = self._trainer(loggers, callbacks)
        if training.ranks.rank == 0:
            drop_rows(self.directory / "metrics.jsonl", 0 if self.start is None else reached_step(self.start))
        try:
            trainer.fit(training, data, ckpt_path=self.start)
        except CerttrainError as error:
            raise type(error)(f"{error}; {self._kept(trainer.global_step)}") from error
        reached = training.objective.eps(training.phases.epoch(trainer.global_step))
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
            logger.log_metrics({**found, "epoch": training.phases.place(step)[0]}, step=step)
        return last if self.survival.best is None or found[MONITOR] > self.survival.best else best

    def _certify_unaveraged(
        self, network: torch.nn.Module, checkpoint: Path, data: ImageData, trained_on: torch.device
    ) -> Record | None:
        """The weights at the same step, which an average is compared with; None where nothing was averaged."""
        if not self.config.certify.enabled or not is_averaged(checkpoint):
            return None
        load_state(network, unaveraged_state(checkpoint), checkpoint)
        verdicts, _ = certify_test_images(
            self.config, network, data.splits, self.directory, trained_on, self.console, ledger=UNAVERAGED_LEDGER
        )
        return summarize(verdicts, self.config.certify.verifiers)

    def _conclude(
        self,
        verdicts: list[Verdict],
        train_seconds: float,
        certify_seconds: float | None,
        parameters: int,
        checkpoint: Path,
        data: Record,
        unaveraged: Record | None,
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
            data=data,
            checkpoint=checkpoint.name,
            unaveraged=unaveraged,
        )
        write_report(self.directory)
        if verdicts:
            print_verdict(self.console, record)
        if unaveraged is not None:
            self.console.print(f"without averaging: {accuracies_of(record['unaveraged'])}", highlight=False)
        self.console.print(
            f"trained in {train_seconds:.1f} s"
            + (f", certified in {certify_seconds:.1f} s" if certify_seconds is not None else "")
            + f"; judged {checkpoint.name}\nreport: {self.directory / 'report.html'}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return record
