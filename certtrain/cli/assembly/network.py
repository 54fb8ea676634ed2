"""The network for the data, and the weights that it begins with."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from certtrain.cli.assembly.parts import part
from certtrain.cli.configuration.schema import RunConfig
from certtrain.data.source import Source
from certtrain.errors import CerttrainError, ConfigError
from certtrain.networks import Graph, trace
from certtrain.networks.initialisation import initialise
from certtrain.training.checkpoints import check_finite, load_network


def make_network(config: RunConfig, source: Source) -> tuple[nn.Module, Graph]:
    """The network for the data, and its graph."""
    network = part(
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
