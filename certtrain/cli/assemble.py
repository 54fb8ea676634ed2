"""From a checked configuration to the objects of a run."""

from __future__ import annotations

from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from torch import nn

from certtrain.bounds import Relaxation, build
from certtrain.cli.schema import Node, RunConfig
from certtrain.data.augment import Augmentation
from certtrain.data.module import ImageData
from certtrain.data.source import Source
from certtrain.errors import CerttrainError, ConfigError
from certtrain.gradients import PGPE, Backprop, GradientEstimator
from certtrain.networks import Graph, trace
from certtrain.training.module import CertifiedTraining, Objective, Optimization
from certtrain.training.schedules import Ramp


def instantiate(node: Node, key: str, **given: Any) -> Any:
    """Builds what a node's `_target_` names.

    Raises:
        CerttrainError: The target's own complaint, or one line that names the key.
    """
    try:
        return hydra.utils.instantiate({**node, "_convert_": "all"}, **given)
    except InstantiationException as error:
        if isinstance(error.__cause__, CerttrainError):
            raise error.__cause__ from None
        cause = error.__cause__ or error
        raise ConfigError(f"{key}: {str(cause).splitlines()[0]}") from error


def make_relaxation(config: RunConfig) -> Relaxation:
    """The relaxation that trains."""
    return build(config.relaxation.name, config.relaxation.backend, **config.relaxation.options)


def make_source(config: RunConfig) -> Source:
    """Where the images come from; nothing is read."""
    return instantiate(config.data.source, "data.source")


def make_data(config: RunConfig) -> ImageData:
    """Batches; nothing is read before `setup`."""
    data = config.data
    augment = Augmentation(data.augment.crop, data.augment.flip)
    return ImageData(
        make_source(config),
        data.batch_size,
        data.test_batch_size,
        data.validation,
        data.split_seed,
        augment,
        config.seed,
    )


def make_network(config: RunConfig, source: Source) -> tuple[nn.Module, Graph]:
    """The network for the data, and its graph."""
    network = instantiate(
        config.model,
        "model",
        input_shape=source.shape,
        num_classes=source.num_classes,
        mean=source.mean,
        std=source.std,
    )
    return network, trace(network, source.shape)


def make_estimator(config: RunConfig) -> GradientEstimator:
    """The method."""
    if config.method == "grad" or config.pgpe is None:
        return Backprop()
    options = config.pgpe
    return PGPE(
        options.sigma,
        options.population_size,
        config.seed,
        options.strategy,
        options.member_chunk,
        options.max_dropped,
    )


def make_training(config: RunConfig, network: nn.Module, graph: Graph) -> CertifiedTraining:
    """The LightningModule of a run."""
    eps, natural = config.schedule.eps, config.schedule.natural_weight
    objective = Objective(
        make_relaxation(config),
        instantiate(config.loss, "loss"),
        config.eps,
        config.clip,
        Ramp(0.0, config.eps * eps.scale, eps.warmup, eps.ramp),
        Ramp(natural.start, natural.end, natural.warmup, natural.ramp),
    )
    optimization = Optimization(
        instantiate({**config.optimizer.target, "_partial_": True}, "optimizer"),
        instantiate({**config.scheduler, "_partial_": True}, "scheduler"),
        config.optimizer.clip_norm,
    )
    return CertifiedTraining(network, graph, make_estimator(config), objective, optimization)
