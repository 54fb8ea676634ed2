"""One run: train, keep the best checkpoint, certify the test images, leave the record."""

from __future__ import annotations

import json
import logging
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import Logger, WandbLogger
from rich.console import Console

from certtrain.certify import Attack, Verdict, certify, summarize
from certtrain.cli import cluster
from certtrain.cli.assemble import (
    begin_from_checkpoint,
    make_data,
    make_layout,
    make_network,
    make_ranks,
    make_training,
    make_warm_start,
)
from certtrain.cli.schema import RunConfig, parse, plain
from certtrain.cli.supervisor import run_ranks
from certtrain.data.batches import as_float
from certtrain.data.module import ImageData
from certtrain.gradients import Distributed
from certtrain.gradients.distributed import noticing_lost_peers
from certtrain.report import certification_progress, print_verdict, write_report, write_summary
from certtrain.training.checkpoints import AtomicCheckpointIO, checkpoint_callbacks, load_network
from certtrain.training.metrics import JsonlLogger
from certtrain.training.module import CertifiedTraining
from certtrain.training.progress import progress_callback
from certtrain.training.replicas import CommunicationReport, Replicas, SameParameters

Record = dict[str, Any]


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
    OmegaConf.save(OmegaConf.create(node), directory / "config.yaml")
    if dist.is_initialized():
        cluster.tell(cluster.Orders(node, directory))
    elif config.trainer.ranks > 1:
        run_ranks(directory, config.trainer.ranks)
        record = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        return record.get("certified_accuracy")
    return run_in(directory, node).get("certified_accuracy")


def run_in(directory: Path, node: Record) -> Record:
    """Runs a resolved configuration in this process: the whole run, or what one of its ranks has to do.

    Args:
        directory: The run directory; exists.
        node: The configuration.

    Returns:
        What stands in summary.json; nothing on ranks other than the first.
    """
    config = parse(node)
    if dist.is_initialized() and dist.get_rank() > 0:
        with _quiet_libraries():
            return Job(config, directory, Console(quiet=True)).run([])
    with _quiet_libraries(), _loggers(config, node, directory) as loggers:
        record = Job(config, directory, Console()).run(loggers)
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.summary.update(record)
    return record


class Job:
    """The parts of one run and the order they are used in.

    Args:
        config: What to run.
        directory: The run directory; exists.
        console: Where people read.
    """

    def __init__(self, config: RunConfig, directory: Path, console: Console) -> None:
        self.config = config
        self.directory = directory
        self.console = console

    def run(self, loggers: list[Logger]) -> Record:
        """Trains, certifies if asked to, and returns what stands in summary.json.

        Ranks other than the first one are done after the training and return nothing.
        """
        config, console = self.config, self.console
        console.print(
            f"[bold]{config.method}[/] with [bold]{config.relaxation.name}[/] bounds on {config.data.name}, "
            f"eps {config.eps:g}, seed {config.seed}\n{self.directory}",
            highlight=False,
        )
        pl.seed_everything(config.seed % 2**32, verbose=False)
        data = make_data(config)
        data.setup()
        network, graph = make_network(config, data.source)
        begin_from_checkpoint(config, network)
        ranks = make_ranks(config, make_layout(config))
        training = make_training(config, network, graph, ranks, make_warm_start(config))
        started = time.perf_counter()
        with noticing_lost_peers(ranks):
            checkpoint = self._fit(training, data, loggers)
        train_seconds = time.perf_counter() - started
        cluster.leave()
        if ranks.rank > 0:
            return {}
        load_network(network, checkpoint)
        verdicts, certify_seconds = self._certify(network, data) if config.certify.enabled else ([], None)
        parameters = sum(p.numel() for p in network.parameters())
        return self._conclude(verdicts, train_seconds, certify_seconds, parameters, checkpoint)

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
            # A warm start may have batches of another size: the loader is made anew when it is over.
            reload_dataloaders_every_n_epochs=self.config.warm_start.epochs,
            default_root_dir=self.directory,
        )

    def _fit(self, training: CertifiedTraining, data: ImageData, loggers: list[Logger]) -> Path:
        """Trains and returns the checkpoint to judge."""
        best, last = checkpoint_callbacks(self.directory / "checkpoints")
        validated = len(data.validation_rows) > 0
        callbacks = [*([best] if validated else []), last, progress_callback(self.console)]
        if isinstance(training.ranks, Distributed):
            callbacks += [SameParameters(), CommunicationReport(training.ranks)]
        trainer = self._trainer(loggers, callbacks)
        try:
            trainer.fit(training, data)
        except SystemExit:  # what Lightning makes of an interrupt
            self.console.print(f"stopped at step {trainer.global_step}; {self.directory} keeps the checkpoints so far")
            raise KeyboardInterrupt from None
        reached = training.objective.eps(training.phases.epoch(trainer.global_step))
        if reached < self.config.eps:
            self.console.print(
                f"note: training ended at eps {reached:g}, below {self.config.eps:g}: "
                "train longer or shorten schedule.eps.warmup and schedule.eps.ramp",
                style="yellow",
            )
        return self._choose(trainer, training, data, best)

    def _choose(self, trainer: pl.Trainer, training: CertifiedTraining, data: ImageData, keep: ModelCheckpoint) -> Path:
        """The best checkpoint; weights that max_steps left behind since the last validation are judged now."""
        last = self.directory / "checkpoints" / "last.ckpt"
        if not len(data.validation_rows):
            trainer.save_checkpoint(last)
            return last
        if training.validated_step == trainer.global_step:
            return Path(keep.best_model_path)
        trainer.save_checkpoint(last)
        best = keep.best_model_score
        (found,) = trainer.validate(training, data, verbose=False)
        return last if best is None or found["val/certified_accuracy"] > float(best) else Path(keep.best_model_path)

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

    run_id = uuid.uuid4().hex[:8]
    # Written before anything is logged, so that whoever resumes this directory finds the same W&B run.
    (directory / "wandb_id.txt").write_text(run_id + "\n", encoding="utf-8")
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
    for name in ("pytorch_lightning", "lightning"):  # as conf/config.yaml has it, for ranks that Hydra does not start
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for notice in (
            r".*does not have many workers.*",
            r".*The number of training batches.*is smaller than the logging interval.*",
            r".*Checkpoint directory .* exists and is not empty.*",
            r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
            r".*GPU available but not used.*",
            r".*Total length of `.*` across ranks is zero.*",
        ):
            warnings.filterwarnings("ignore", notice)
        yield
