"""Everything that can be known to fail, found before Hydra creates a directory."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from hydra.core.utils import setup_globals
from omegaconf import DictConfig

from certtrain.bounds import Box
from certtrain.bounds.registry import build
from certtrain.cli.assemble import make_network, make_relaxation, make_source, make_training
from certtrain.cli.compose import Command, compose_jobs
from certtrain.cli.schema import Node, RunConfig, parse, plain
from certtrain.errors import ConfigError
from certtrain.networks import parameters
from certtrain.training.module import CertifiedTraining
from certtrain.training.schedules import with_horizon


def preflight(command: Command) -> None:
    """Composes, parses and assembles every job of a command; the whole sweep before its first job.

    Raises:
        CerttrainError: One line about the first job that cannot run.
    """
    setup_globals()
    seen: set[str] = set()
    for composed in compose_jobs(command):
        if not command.multirun:
            _refuse_used_directory(composed)
        node = plain(composed)
        config = parse(node)
        key = _fingerprint(node)
        if key not in seen:
            seen.add(key)
            check_parts(config)


def check_parts(config: RunConfig) -> None:
    """Builds what a run is made of: data in place, network fits them, relaxation and verifiers know its operations.

    Raises:
        CerttrainError: One line about what is wrong.
    """
    source = make_source(config)
    source.check()
    network, graph = make_network(config, source)
    _check_optimization(make_training(config, network, graph))
    for name in config.certify.verifiers:
        build(name)
    if config.relaxation.backend != "native":
        # Another library may refuse what tracing accepts: one image tells.
        image = torch.zeros((1, *source.shape))
        make_relaxation(config).bound(graph, parameters(network), Box.linf(image, config.eps, config.clip))


def _check_optimization(training: CertifiedTraining) -> None:
    """Builds the optimizer and the scheduler once: only their classes know which arguments are legal."""
    key = "optimizer"
    try:
        optimizer = training.optimization.optimizer(training.network.parameters())
        key = "scheduler"
        with_horizon(training.optimization.scheduler, optimizer, steps=1)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error


def _fingerprint(node: Node) -> str:
    """What the parts depend on: a sweep over other keys checks them once."""
    return json.dumps({k: v for k, v in node.items() if k not in ("seed", "eps", "certify", "logger")}, default=str)


def _refuse_used_directory(composed: DictConfig) -> None:
    directory = Path(composed.hydra.run.dir)
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir())):
        raise ConfigError(f"hydra.run.dir={directory} exists and is not empty: choose another or remove it")
