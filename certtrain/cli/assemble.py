"""From a checked configuration to the objects of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from hydra.errors import InstantiationException
from torch import nn

from certtrain.bounds import Relaxation, build, relaxations
from certtrain.certify import Attack, AttackEnsemble, Falsifier
from certtrain.certify.arithmetic import arithmetic_named
from certtrain.certify.verifiers import Verifier, choose
from certtrain.cli import handover
from certtrain.cli.own_targets import REPLACED, accepted
from certtrain.cli.schema import Node, Pgpe, RunConfig
from certtrain.cli.targets import failed_call, target_fault
from certtrain.data.augment import Augmentation
from certtrain.data.module import EarlyBatches, ImageData
from certtrain.data.source import Source
from certtrain.errors import CerttrainError, ConfigError, one_line
from certtrain.gradients import (
    PGPE,
    RGS,
    Backprop,
    Distributed,
    GradientEstimator,
    LayerScale,
    Layout,
    Ranks,
    SharpnessAware,
)
from certtrain.gradients.adaptive import make as make_control_variate
from certtrain.gradients.base import ALONE
from certtrain.gradients.noise import Noise, NoiseFamily
from certtrain.gradients.sigma import SigmaRule
from certtrain.losses import Loss
from certtrain.networks import Graph, trace
from certtrain.networks.initialisation import initialise
from certtrain.spelling import did_you_mean
from certtrain.training.average import Average
from certtrain.training.checkpoints import check_finite, load_network
from certtrain.training.judged import Judged
from certtrain.training.module import CertifiedTraining
from certtrain.training.objective import Objective, Optimization, Validation
from certtrain.training.phases import NO_WARM_START, WarmStart
from certtrain.training.schedules import Ramp

# By its name among the others, the relaxation that trains.
TRAINING = "training"
# Relaxations that certify next to nothing of what other losses than those of bounds have trained; and one that costs
# little more, and certifies much of it.
LOOSE, TIGHTER = ("ibp", "hbox"), "crown_ibp"
# trainer.forwards -> what plain evaluations are cast to.
FORWARDS: Mapping[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
# How Hydra begins when there is nothing of a target's name.
_ABSENT = re.compile(r"Error loading|Cannot instantiate|Unsupported target|Expected a callable target|Error locating")


def instantiate(node: Node, key: str, **given: Any) -> Any:
    """Builds what a node's `_target_` names.

    Raises:
        CerttrainError: The target's own complaint, or one line that names the key.
    """
    if twice := [name for name in given if name in node]:
        raise ConfigError(f"{key}.{twice[0]} is decided by the rest of the configuration: leave it out")
    if key in REPLACED:
        given = accepted(node, key, given)
    try:
        return hydra.utils.instantiate({**node, "_convert_": "all"}, **given)
    except InstantiationException as error:
        if isinstance(error.__cause__, CerttrainError):
            raise error.__cause__ from None
        if _ABSENT.search(str(error)) and (reason := target_fault(str(node.get("_target_")))):
            raise ConfigError(f"{key}._target_: {reason}") from error
        raise ConfigError(f"{key}: {failed_call(node, error.__cause__ or error)}") from error


def _part(node: Node, key: str, kind: type, **given: Any) -> Any:
    """Builds what a node's `_target_` names, which must be of a kind; see `instantiate`."""
    found = instantiate(node, key, **given)
    _check_kind(found, node, key, kind)
    return found


def _check_kind(found: object, node: Node, key: str, kind: type) -> None:
    if not isinstance(found, kind):
        made, wanted = type(found).__name__, f"{kind.__module__}.{kind.__qualname__}"
        raise ConfigError(f"{key}._target_: {node.get('_target_')} makes a {made}, no {wanted}")


def make_relaxation(config: RunConfig) -> Relaxation:
    """The relaxation that trains."""
    return build(config.relaxation.name, config.relaxation.backend, **config.relaxation.options)


def make_verifiers(config: RunConfig) -> tuple[Verifier, ...]:
    """What certifies, in order.

    Raises:
        ConfigError: One line that names the key.
    """
    given = {name: {"name": node.name, **node.options} for name, node in config.verifier.items()}
    return choose(config.certify.verifiers, given, arithmetic_named(config.certify.arithmetic))


def make_attack(config: RunConfig) -> Falsifier:
    """What looks for counterexamples."""
    options = config.certify.attack
    if options.name == "ensemble":
        assert options.queries is not None
        return AttackEnsemble(options.steps, options.restarts, options.queries, config.seed)
    return Attack(options.steps, options.restarts, seed=config.seed)


def make_source(config: RunConfig) -> Source:
    """Where the images come from; nothing is read."""
    return _part(config.data.source, "data.source", Source)


def make_data(config: RunConfig) -> ImageData:
    """Batches; nothing is read before `setup`, nor then if preflight has read it."""
    data, source = config.data, make_source(config)
    augment = Augmentation(data.augment.crop, data.augment.flip)
    generation = None if config.pgpe is None else config.pgpe.batch_per_generation
    return ImageData(
        source,
        data.batch_size if generation is None else generation,
        data.test_batch_size,
        data.validation,
        data.split_seed,
        data.max_duplicates,
        augment,
        config.seed,
        EarlyBatches(config.warm_start.epochs, data.batch_size),
        handover.kept(source),
    )


def make_network(config: RunConfig, source: Source) -> tuple[nn.Module, Graph]:
    """The network for the data, and its graph."""
    network = _part(
        config.model,
        "model",
        nn.Module,
        input_shape=source.shape,
        num_classes=source.num_classes,
        mean=source.mean,
        std=source.std,
    )
    initialise(network, config.init)
    graph = trace(network, source.shape)
    if graph.num_outputs < source.num_classes:
        raise ConfigError(
            f"model: the network has {graph.num_outputs} outputs, data={source.name} has {source.num_classes} classes"
        )
    return network, graph


def begin_from_checkpoint(config: RunConfig, network: nn.Module) -> None:
    """Gives the network the weights that the run starts from, if it names a checkpoint.

    Raises:
        ConfigError: If the file is absent, holds no weights, those of another architecture, or no finite numbers.
    """
    key = "warm_start.path" if config.fork is None else "fork"
    if config.warm_start.path is None:
        return
    path = Path(config.warm_start.path)
    try:
        load_network(network, path)
        check_finite(network.state_dict(), path)
    except CerttrainError as error:
        raise ConfigError(f"{key}: {error}") from error


def make_estimator(config: RunConfig) -> GradientEstimator:
    """The method."""
    if config.method == "pgpe":
        assert config.pgpe is not None  # the configuration is checked: a method has its node
        return _make_pgpe(config.pgpe, config.seed)
    if config.method == "rgs":
        assert config.rgs is not None
        rgs = config.rgs
        return RGS(rgs.sigma, rgs.samples, config.seed, rgs.sampling, rgs.strategy, rgs.member_chunk, rgs.sigma_unit)
    return Backprop() if config.sam.rho is None else SharpnessAware(config.sam.rho)


def _make_pgpe(options: Pgpe, seed: int) -> PGPE:
    return PGPE(
        options.sigma,
        options.population_size,
        seed,
        options.strategy,
        options.member_chunk,
        options.fitness,
        _part(options.sigma_rule, "pgpe.sigma_rule", SigmaRule),
        _noise(options, seed),
        LayerScale(options.layer_scale or {}),
        options.max_dropped,
        make_control_variate(options.control_variate, options.control_samples),
        options.shrinkage,
        options.sigma_unit,
    )


def _noise(options: Pgpe, seed: int) -> NoiseFamily:
    """The noise of any sigma; made once here, so that wrong options show at once."""
    family = instantiate({**options.noise, "_partial_": True}, "pgpe.noise")
    try:
        made = family(seed, options.sigma)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"pgpe.noise: {one_line(error)}") from error
    _check_kind(made, options.noise, "pgpe.noise", Noise)
    return family


def make_layout(config: RunConfig) -> Layout:
    """How the ranks of a run divide its generations."""
    size = config.trainer.ranks
    if make_estimator(config).splits == "batch":
        return Layout.batch(size)
    if config.pgpe is not None and config.pgpe.parallel == "hybrid":
        return Layout.hybrid(size, config.pgpe.groups or 0)
    return Layout.population(size)


def make_ranks(config: RunConfig, layout: Layout) -> Ranks:
    """This process among the ranks of its run, which have joined already; every rank calls it at the same point."""
    return ALONE if layout.size == 1 else Distributed(layout, config.trainer.timeout_s)


def make_warm_start(config: RunConfig) -> WarmStart:
    """The epochs of plain gradients, whose ranks divide the batch; see `make_ranks`."""
    epochs = config.warm_start.epochs
    return WarmStart(epochs, make_ranks(config, Layout.batch(config.trainer.ranks))) if epochs else NO_WARM_START


def make_validation(config: RunConfig, loss: Loss) -> Validation:
    """By which bounds validation certifies.

    Raises:
        ConfigError: If there is no such relaxation.
    """
    own, asked, images = config.relaxation.name, config.validation.relaxation, config.validation.images
    if asked is None:
        asked = TIGHTER if own in LOOSE and not loss.certifies else TRAINING
    if asked in (TRAINING, own):
        return Validation(own)
    if asked not in relaxations():
        legal = (TRAINING, *relaxations())
        raise ConfigError(
            f"validation.relaxation must be null or one of {', '.join(legal)}, got '{asked}'"
            + did_you_mean(asked, legal)
        )
    return Validation(asked, build(asked), images)


def _check_divided(config: RunConfig, loss: Loss) -> None:
    if not loss.divisible and (config.trainer.ranks > 1 or config.trainer.accumulate > 1):
        raise ConfigError(
            "loss: it is one of whole batches, which nothing may divide: "
            "trainer.devices, trainer.num_nodes and trainer.accumulate must be 1"
        )


def make_training(
    config: RunConfig,
    network: nn.Module,
    graph: Graph,
    ranks: Ranks = ALONE,
    warm_start: WarmStart = NO_WARM_START,
) -> CertifiedTraining:
    """The LightningModule of a run."""
    eps, natural = config.schedule.eps, config.schedule.natural_weight
    loss = _part(config.loss, "loss", Loss)
    _check_divided(config, loss)
    objective = Objective(
        make_relaxation(config),
        loss,
        config.eps,
        config.clip,
        Ramp(0.0, config.eps * eps.scale, eps.warmup, eps.ramp, eps.shape),
        Ramp(natural.start, natural.end, natural.warmup, natural.ramp),
        config.seed,
        make_validation(config, loss),
        FORWARDS[config.trainer.forwards],
    )
    optimization = Optimization(
        instantiate({**config.optimizer.target, "_partial_": True}, "optimizer"),
        instantiate({**config.scheduler, "_partial_": True}, "scheduler"),
        config.optimizer.clip_norm,
        config.trainer.accumulate,
    )
    judged = Judged(_part(config.average, "average", Average), config.batch_norm)
    return CertifiedTraining(network, graph, make_estimator(config), objective, optimization, ranks, warm_start, judged)
