"""Who estimates gradients, and how the ranks of a run share that."""

from __future__ import annotations

from certtrain.cli.assembly.parts import check_kind, instantiate, part
from certtrain.cli.configuration.schema import RunConfig
from certtrain.cli.configuration.schema.methods import Pgpe
from certtrain.errors import ConfigError, one_line
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
from certtrain.gradients.base import ALONE
from certtrain.gradients.noise import Noise, NoiseFamily
from certtrain.gradients.registry import make_control_variate
from certtrain.gradients.sigma import SigmaRule
from certtrain.training.phases import NO_WARM_START, WarmStart


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
        part(options.sigma_rule, "pgpe.sigma_rule", SigmaRule),
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
    check_kind(made, options.noise, "pgpe.noise", Noise)
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
