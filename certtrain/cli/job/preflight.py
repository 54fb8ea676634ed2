"""Everything that can be known to fail, found before Hydra creates a directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
import torch.distributed as dist
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from certtrain.cli.assembly import handover
from certtrain.cli.assembly.bounds import make_verifiers
from certtrain.cli.assembly.data import make_data, make_source
from certtrain.cli.assembly.network import begin_from_checkpoint, make_network
from certtrain.cli.assembly.training import make_training
from certtrain.cli.configuration.compose import Command, compose_jobs, hydra_for, parsed_overrides
from certtrain.cli.configuration.explain import explaining
from certtrain.cli.configuration.schema import Node, RunConfig, parse, plain
from certtrain.cli.configuration.schema.training import Trainer
from certtrain.cli.estimates.announcement import announcement, noise_images
from certtrain.cli.rundir.directory import WATCHING
from certtrain.cli.rundir.resume import Place, find_place
from certtrain.data.module import ImageData
from certtrain.data.source import Source
from certtrain.errors import ConfigError, one_line
from certtrain.gradients.base import ALONE
from certtrain.networks import parameters
from certtrain.networks.statistics import check_batch
from certtrain.sweep.launcher import subdirectory, typed_overrides
from certtrain.sweep.plugins import check as check_launcher
from certtrain.sweep.record import check_continues
from certtrain.tracking.packages import check_login, require
from certtrain.training.checkpoints import read_checkpoint
from certtrain.training.generation import Generation
from certtrain.training.judging import judge
from certtrain.training.module import CertifiedTraining
from certtrain.training.schedules import with_horizon
from certtrain.training.shards import Shard
from certtrain.training.survival import newest
from certtrain.tuning.plan import check as check_search
from certtrain.tuning.plan import is_search


def preflight(command: Command) -> Place:
    """Composes, parses and assembles every job of a command; the whole sweep before its first job.

    Returns:
        Where the run goes.

    Raises:
        CerttrainError: One line about the first job that cannot run.
    """
    if command.multirun and dist.is_initialized():
        raise ConfigError("a sweep starts the ranks of its jobs itself: call it without torchrun or srun")
    with explaining():  # interpolations are followed where they are read
        return check_jobs(command, list(compose_jobs(command)))


def check_jobs(command: Command, jobs: list[DictConfig]) -> Place:
    """The same for jobs that are composed.

    Args:
        command: Of the jobs.
        jobs: With the node `hydra`.
    """
    setup_globals()
    handover.forget()
    seen: set[str] = set()
    configs: list[RunConfig] = []
    if command.multirun:
        _check_sweep(command, jobs)
    place = Place()
    for composed in jobs:
        node = plain(composed)
        config = parse(node)
        if not command.multirun:
            HydraConfig.instance().set_config(composed)  # for ${hydra:...} in the name of its directory
            place = find_place(composed, node)
            if place.finished:
                return place
        make_verifiers(config)
        key = _fingerprint(node)
        if key not in seen:
            seen.add(key)
            check_parts(config, place.directory)
            configs.append(config)
    # Last, since it takes longest; and not where other ranks wait: all of them read at the same time, before training.
    if not dist.is_initialized():
        for config in configs:
            check_data(config, place.directory)
    # A sweep's jobs are other processes, which read for themselves.
    if command.multirun:
        handover.forget()
    return place


def _check_sweep(command: Command, jobs: list[DictConfig]) -> None:
    node = jobs[0].hydra
    check_launcher(dict(node.launcher or {}))
    if is_search(node.sweeper):
        _check_search(command, jobs)
    else:
        check_continues(Path(node.sweep.dir), [typed_overrides(job, "task") for job in jobs])
    places: dict[str, int] = {}
    for number, job in enumerate(jobs):
        place = subdirectory(job, number)
        if number != (other := places.setdefault(os.path.normpath(place), number)):
            raise ConfigError(f"hydra.sweep.subdir: jobs {other} and {number} would share the directory {place}")
    for job in jobs:
        if str(job.resume) not in ("auto", "never"):
            raise ConfigError(f"resume={job.resume} is one run: leave -m out")


def _check_search(command: Command, jobs: list[DictConfig]) -> None:
    node = jobs[0].hydra
    options = OmegaConf.to_container(node.sweeper, resolve=True)
    assert isinstance(options, dict)
    with hydra_for(command):
        typed = [str(o.input_line) for o in parsed_overrides(command) if not o.is_hydra_override()]
        check_search(
            {str(name): value for name, value in options.items() if name not in ("_target_", "_recursive_")},
            typed,
            GlobalHydra.instance().config_loader(),
            Path(node.sweep.dir),
            all(float(job.data.validation) > 0 for job in jobs),
        )


def check_parts(config: RunConfig, directory: Path | None = None) -> None:
    """Builds what a run is made of: data in place, network fits them, one step of training can be taken.

    Says what a generation takes where that is much.

    Args:
        config: Of the run.
        directory: Where it goes on; None for a new one.

    Raises:
        CerttrainError: One line about what is wrong.
    """
    _check_devices(config.trainer)
    _check_logger(config)
    source = make_source(config)
    source.check()
    network, graph = make_network(config, source)
    check_batch(graph, make_data(config).smallest_batch_size)
    # Weights that a run began with may be gone when it goes on.
    if directory is None or newest(directory / "checkpoints") is None:
        begin_from_checkpoint(config, network)
    training = make_training(config, network, graph)
    _rehearse(config, training, source)
    if (line := announcement(config, training, source)) is not None:
        print(f"note: {line}", flush=True)


def check_data(config: RunConfig, directory: Path | None = None) -> None:
    """Reads all images and splits them, and keeps what was read for `make_data`.

    Args:
        config: The run.
        directory: Where it goes on; None if it is new.

    Raises:
        CerttrainError: One line about what is wrong; also if it was trained on other images up to here.
    """
    data = make_data(config)
    data.setup()
    last = None if directory is None else newest(directory / "checkpoints")
    if last is not None:
        data.load_state_dict(read_checkpoint(last, mmap=True).get(ImageData.__qualname__, {}))
    handover.keep(data.source, data.splits)


def _check_devices(trainer: Trainer) -> None:
    if trainer.accelerator == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ConfigError("trainer.accelerator=gpu: there is no GPU that torch can use; choose cpu or auto")
    # One process per GPU; a CPU takes any number.
    if trainer.accelerator != "cpu" and torch.cuda.is_available() and trainer.devices > torch.cuda.device_count():
        raise ConfigError(
            f"trainer.devices={trainer.devices}: there are {torch.cuda.device_count()} GPUs; "
            "trainer.accelerator=cpu trains on the CPU"
        )
    started = dist.get_world_size() if dist.is_initialized() else 1
    if started > 1 and started != trainer.ranks:
        raise ConfigError(
            f"{started} processes were started for trainer.devices={trainer.devices} on trainer.num_nodes="
            f"{trainer.num_nodes}: these must multiply to the number of processes"
        )
    if trainer.num_nodes > 1 and started == 1:
        raise ConfigError(
            f"trainer.num_nodes={trainer.num_nodes}: start the command on every node, with torchrun or srun"
        )


def _rehearse(config: RunConfig, training: CertifiedTraining, source: Source) -> None:
    """One step and one validation on two images of noise: only the parts know whether they can work together."""
    inputs, labels = noise_images(source, 2)
    shard, params = Shard.of((inputs, labels), ALONE), parameters(training.network)
    graph, objective = training.graph, training.objective
    estimator = training.estimator.decided("loop").rehearsing()  # what is measured, is measured in the run
    key = "loss"
    try:
        for generation in Generation.extremes(graph, objective):
            loss = generation.loss(shard, params, generation.statistics(params, shard), estimator)
            estimate = estimator.estimate(loss, params, generation.number)
        with torch.no_grad():
            judge(graph, objective, params, inputs[:1], labels[:1])
        for name, parameter in params.items():
            parameter.grad = estimate.gradient[name]
        key = "optimizer"
        optimizer = training.optimization.optimizer(training.network.parameters())
        key = "scheduler"
        scheduler = with_horizon(training.optimization.scheduler, optimizer, steps=2)
        key = step = f"optimizer: a step with optimizer.lr={config.optimizer.lr:g}"
        optimizer.step()
        key = "scheduler"
        scheduler.step()
    except (TypeError, ValueError, ArithmeticError, RuntimeError, LookupError, AttributeError) as error:
        raise ConfigError(f"{key}: {one_line(error)}") from error
    if not all(parameter.isfinite().all() for parameter in params.values()):
        raise ConfigError(f"{step}: weights become numbers that are not finite")


def _check_logger(config: RunConfig) -> None:
    """Refuses a view whose package is missing, or a W&B that nobody is logged in to."""
    for name in ("wandb", "tensorboard"):
        if getattr(config.logger, name) is not None:
            require(name, f"logger={name}")
    if config.logger.wandb is not None:
        check_login("logger=wandb")


def _fingerprint(node: Node) -> str:
    """What the parts depend on: a sweep over other keys checks them once."""
    others = ("seed", "certify", "verifier", *WATCHING)
    return json.dumps({k: v for k, v in node.items() if k not in others}, default=str)
