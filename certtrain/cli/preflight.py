"""Everything that can be known to fail, found before Hydra creates a directory."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from hydra.core.utils import setup_globals
from omegaconf import DictConfig

from certtrain.certify.verifiers import resolve
from certtrain.cli.assemble import make_network, make_source, make_training
from certtrain.cli.compose import Command, compose_jobs
from certtrain.cli.resume import Place, find_place, refuse_used
from certtrain.cli.rundir import WATCHING
from certtrain.cli.schema import Node, RunConfig, parse, plain
from certtrain.data.source import Source
from certtrain.errors import ConfigError, one_line
from certtrain.gradients import PGPE
from certtrain.losses import Problem
from certtrain.networks import parameters
from certtrain.training.module import CertifiedTraining
from certtrain.training.schedules import with_horizon


def preflight(command: Command) -> Place:
    """Composes, parses and assembles every job of a command; the whole sweep before its first job.

    Returns:
        Where the run goes.

    Raises:
        CerttrainError: One line about the first job that cannot run.
    """
    setup_globals()
    seen: set[str] = set()
    place = Place()
    for composed in compose_jobs(command):
        node = plain(composed)
        config = parse(node)
        place = _place(command, composed, node, config)
        if place.finished:
            continue
        resolve(config.certify.verifiers)
        key = _fingerprint(node)
        if key not in seen:
            seen.add(key)
            check_parts(config)
    return place


def _place(command: Command, composed: DictConfig, node: Node, config: RunConfig) -> Place:
    if not command.multirun:
        return find_place(composed, node)
    refuse_used(Path(composed.hydra.sweep.dir))
    if config.resume not in ("auto", "never"):
        raise ConfigError(f"resume={config.resume} is one run: leave -m out")
    return Place()


def check_parts(config: RunConfig) -> None:
    """Builds what a run is made of: data in place, network fits them, one step of training can be taken.

    Raises:
        CerttrainError: One line about what is wrong.
    """
    if config.trainer.accelerator == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError("trainer.accelerator=gpu: there is no GPU that torch can use; choose cpu or auto")
    _check_logger(config)
    source = make_source(config)
    source.check()
    network, graph = make_network(config, source)
    _rehearse(config, make_training(config, network, graph), source)


def _rehearse(config: RunConfig, training: CertifiedTraining, source: Source) -> None:
    """One step on two blank images: only the loss and the optimizer know whether they can work with their arguments.

    Native relaxations know every operation that tracing accepts, so their bounds, which may be expensive, are left out
    (eps 0); another library may refuse some.
    """
    eps = 0.0 if config.relaxation.backend == "native" else config.eps
    inputs, labels = torch.zeros((2, *source.shape)), torch.arange(2) % source.num_classes
    problem = Problem(training.graph, training.objective.relaxation, inputs, labels, eps, 0.0, config.clip)
    params = parameters(training.network)
    estimator = training.estimator.decided("loop")  # what is measured, is measured in the run
    if isinstance(estimator, PGPE):
        estimator = replace(estimator, population_size=2)
    key = "loss"
    try:
        estimate = estimator.estimate(lambda p: training.objective.loss(problem, p), params, generation=0)
        for name, parameter in params.items():
            parameter.grad = estimate.gradient[name]
        key = "optimizer"
        optimizer = training.optimization.optimizer(training.network.parameters())
        key = "scheduler"
        scheduler = with_horizon(training.optimization.scheduler, optimizer, steps=2)
        key = "optimizer"
        optimizer.step()
        key = "scheduler"
        scheduler.step()
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(f"{key}: {one_line(error)}") from error


def _check_logger(config: RunConfig) -> None:
    if config.logger.name != "wandb" or os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return
    import wandb

    if not wandb.api.api_key:
        raise ConfigError("logger=wandb: not logged in; run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")


def _fingerprint(node: Node) -> str:
    """What the parts depend on: a sweep over other keys checks them once."""
    return json.dumps({k: v for k, v in node.items() if k not in ("seed", "eps", "certify", *WATCHING)}, default=str)
