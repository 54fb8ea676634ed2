"""What `certtrain certify` is pointed at: where weights come from, under which configuration, and where results go.

One class for each kind of target; `find_target` tells them apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from torch import nn

from certtrain.cli.assembly.network import make_network
from certtrain.cli.configuration.recompose import compose_anew, compose_upon
from certtrain.cli.configuration.schema import Node, RunConfig
from certtrain.cli.rundir.code import tell_changes
from certtrain.cli.rundir.directory import RunDirectory, parse_recorded
from certtrain.data.source import Source
from certtrain.earlier import completed
from certtrain.errors import CerttrainError, ConfigError
from certtrain.networks.onnx import from_onnx
from certtrain.report.identity import identify
from certtrain.training.checkpoints import load_network, network_state

# A checkpoint of a run lies in a folder of this name in the run directory.
CHECKPOINTS = "checkpoints"
# Of a configuration that is not the one of the training: what was asked, and what the network is.
ASKED = ("eps", "seed", "model", "model_options")


class Target(ABC):
    """Something with weights."""

    @property
    @abstractmethod
    def home(self) -> Path:
        """The folder under which its certifications go."""

    @property
    @abstractmethod
    def weights(self) -> Path:
        """The file that holds its weights."""

    @abstractmethod
    def configuration(self, overrides: Sequence[str]) -> Node:
        """The resolved configuration that a certification has with these overrides.

        Raises:
            ConfigError: If one of them does not fit.
        """

    def check(self) -> None:
        """Says whether what is recorded is wrong by itself, whatever the overrides are.

        Raises:
            ConfigError: If so, naming the file.
        """
        return

    @abstractmethod
    def identity(self, node: Node) -> Mapping[str, Any]:
        """What is known of network and training, as `certtrain.report.write_summary` takes it.

        Args:
            node: The configuration of the certification.
        """

    @property
    def trained_eps(self) -> float | None:
        """The radius that was trained for; None where it is not known."""
        return None

    @abstractmethod
    def network(self, config: RunConfig, source: Source) -> nn.Module:
        """The network with its weights.

        Raises:
            CerttrainError: If the weights do not fit the configuration.
        """


@dataclass(frozen=True)
class TrainedRun(Target):
    """A run directory: its configuration and the weights that it judged.

    Attributes:
        run: The directory.
        checkpoint: Its weights.
    """

    run: RunDirectory
    checkpoint: Path

    @property
    def home(self) -> Path:
        """See `Target`."""
        return self.run.path

    @property
    def weights(self) -> Path:
        """See `Target`."""
        return self.checkpoint

    def configuration(self, overrides: Sequence[str]) -> Node:
        """See `Target`: the run's own one, with other settings of the certification."""
        node = self.run.configuration()
        tell_changes(self.run.path)
        if node is None:
            raise ConfigError(f"certify: {self.run.path} has no config.yaml that can be read")
        return compose_upon(completed(node), overrides)

    def check(self) -> None:
        """See `Target`."""
        parse_recorded(self.run.configuration() or {}, self.run.path)

    def identity(self, node: Node) -> Mapping[str, Any]:
        """See `Target`: what the run has decided, a certification leaves as it is."""
        return identify(node)

    @property
    def trained_eps(self) -> float | None:
        """See `Target`."""
        eps = (self.run.configuration() or {}).get("eps")
        return float(eps) if isinstance(eps, (int, float)) else None

    def network(self, config: RunConfig, source: Source) -> nn.Module:
        """See `Target`."""
        return _with_weights(self.checkpoint, config, source)


@dataclass(frozen=True)
class LooseCheckpoint(Target):
    """A checkpoint of which the command line says what it is.

    Attributes:
        checkpoint: The file.
    """

    checkpoint: Path

    @property
    def home(self) -> Path:
        """See `Target`."""
        return self.checkpoint.parent

    @property
    def weights(self) -> Path:
        """See `Target`."""
        return self.checkpoint

    def configuration(self, overrides: Sequence[str]) -> Node:
        """See `Target`: composed as for a run."""
        if not any(override.startswith(("model=", "model._target_=", "experiment=")) for override in overrides):
            raise ConfigError(f"certify: {self.checkpoint} does not name its network: add model=... and data=...")
        return compose_anew(overrides)

    def identity(self, node: Node) -> Mapping[str, Any]:
        """See `Target`: whatever the configuration says, the file does not tell what trained it."""
        return {key: value for key, value in identify(node).items() if key in ASKED}

    def network(self, config: RunConfig, source: Source) -> nn.Module:
        """See `Target`."""
        return _with_weights(self.checkpoint, config, source)


@dataclass(frozen=True)
class OnnxFile(Target):
    """A network of whatever origin.

    Attributes:
        file: The file.
    """

    file: Path

    @property
    def home(self) -> Path:
        """See `Target`."""
        return self.file.parent

    @property
    def weights(self) -> Path:
        """See `Target`."""
        return self.file

    def configuration(self, overrides: Sequence[str]) -> Node:
        """See `Target`: composed as for a run; the model of the configuration is not used."""
        if not any(override.startswith(("data=", "experiment=")) for override in overrides):
            raise ConfigError(f"certify: {self.file} does not say what its inputs are: add data=...")
        if any(override.startswith("model") for override in overrides):
            raise ConfigError(f"certify: {self.file} is a network already: leave out model=...")
        return compose_anew(overrides)

    def identity(self, node: Node) -> Mapping[str, Any]:
        """See `Target`: of the training nothing is known."""
        return {key: node.get(key) for key in ("eps", "seed")} | {"model": self.file.name}

    def network(self, config: RunConfig, source: Source) -> nn.Module:
        """See `Target`; images are reshaped where the file wants them in another shape of the same size."""
        found = from_onnx(self.file)
        wanted, given = tuple(found.input_shape), tuple(source.shape)
        if prod(wanted) != prod(given):
            raise ConfigError(
                f"certify: {self.file} reads inputs of shape {wanted}, the images of {config.data.name} are {given}"
            )
        if found.num_outputs != source.num_classes:
            raise ConfigError(
                f"certify: {self.file} has {found.num_outputs} outputs, {config.data.name} {source.num_classes} classes"
            )
        if wanted == given:
            return found
        return nn.Sequential(nn.Flatten(), *([nn.Unflatten(1, wanted)] if len(wanted) > 1 else []), found)


def find_target(path: Path, overrides: Sequence[str]) -> Target:
    """What lies at a path.

    Args:
        path: A run directory, an ONNX file (.onnx or .onnx.gz), or a checkpoint; one in a run directory is of that run,
            unless a model is named.
        overrides: Of the command line.

    Raises:
        ConfigError: If it is nothing that can be certified.
    """
    if path.is_dir():
        return TrainedRun(*_run_in(path))
    if not path.is_file():
        raise ConfigError(f"certify: there is no run directory, checkpoint or ONNX file {path}")
    if path.name.endswith((".onnx", ".onnx.gz")):
        return OnnxFile(path)
    try:
        network_state(path)
    except CerttrainError as error:
        raise ConfigError(f"certify: {error}; a target is a run directory, a checkpoint or an ONNX file") from error
    run = RunDirectory(path.resolve().parent.parent)
    named = any(override.startswith(("model=", "model._target_=")) for override in overrides)
    if path.resolve().parent.name == CHECKPOINTS and run.configuration() is not None and not named:
        return TrainedRun(run, path)
    return LooseCheckpoint(path)


def _run_in(path: Path) -> tuple[RunDirectory, Path]:
    run = RunDirectory(path)
    if run.configuration() is None:
        raise ConfigError(f"certify: {path} is no run directory: it has no config.yaml that can be read")
    return run, run.judged


def _with_weights(checkpoint: Path, config: RunConfig, source: Source) -> nn.Module:
    network, _ = make_network(config, source)
    load_network(network, checkpoint)
    return network
