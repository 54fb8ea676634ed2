"""A finished run as `landscape` and `analyze` measure it: its network, images, and what was asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from certtrain.analysis import Subject
from certtrain.bounds import Relaxation, build
from certtrain.cli.assembly.bounds import make_relaxation
from certtrain.cli.assembly.data import make_data
from certtrain.cli.assembly.network import make_network
from certtrain.cli.configuration.options import keyed_parser, read_options
from certtrain.cli.configuration.schema import Node, RunConfig, Strict
from certtrain.cli.rundir.directory import RunDirectory, read_run
from certtrain.data.batches import as_float
from certtrain.errors import ConfigError, one_line
from certtrain.networks import parameters
from certtrain.training.checkpoints import load_network
from certtrain.training.survival import BEST, LAST

RELAXATIONS = ("ibp", "hbox", "zonotope", "crown_ibp", "deeppoly")


class Options(Strict):
    """What both commands understand; the descriptions are their --help."""

    images: int = Field(16, ge=1, description="the first so many of the split")
    split: Literal["train", "validation", "test"] = Field("train", description="whose images; never augmented")
    checkpoint: str = Field("judged", description="judged (what the run certified), best, last, or a file")
    eps: float | None = Field(None, gt=0, le=1, description="radius in pixel units; null: the run's")
    relaxations: tuple[str, ...] = Field(
        RELAXATIONS, min_length=1, strict=False, description="by name; the run's own has its options, others defaults"
    )
    sigmas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.01, 0.03, 0.1), min_length=1, strict=False, description="of the smoothing, relative: σ√d/‖θ‖"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of everything that is drawn")
    device: str = Field("cpu", description="where to compute, such as cuda; always in float64")


Asked = TypeVar("Asked", bound=Options)


def read(command: str, description: str, kind: type[Asked], arguments: Sequence[str]) -> tuple[Path, Asked]:
    """The run directory and the options of a command line.

    Args:
        command: Its first word.
        description: What --help says above the keys.
        kind: The options.
        arguments: What follows the command.

    Raises:
        ConfigError: If a key does not exist or its value is not legal.
    """
    parser = keyed_parser(command, description, kind)
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("overrides", nargs="*", default=[], help="key=value")
    found = parser.parse_args(list(arguments))
    return found.run, read_options(command, kind, found.overrides)


@dataclass(frozen=True)
class Measured:
    """A run that is measured.

    Attributes:
        directory: Where it is.
        node: Its configuration as it stands there.
        config: The same, typed.
        subject: The network in float64, on the images.
        facts: What the numbers depend on, for the record.
    """

    directory: Path
    node: Node
    config: RunConfig
    subject: Subject
    facts: Node

    @staticmethod
    def of(run: Path, options: Options) -> Measured:
        """Loads a run's network and images.

        Raises:
            CerttrainError: If there is no run with a checkpoint, its data cannot be read, or an option does not fit it.
        """
        node, config = read_run(run)
        eps = config.eps if options.eps is None else options.eps
        device = _device(options.device)
        relaxations = {name: _relaxation(config, name) for name in options.relaxations}
        data = make_data(config)
        network, graph = make_network(config, data.source)
        checkpoint = _checkpoint(RunDirectory(run), options.checkpoint)
        load_network(network, checkpoint)
        network.to(device).eval()
        inputs, labels = _images(data, options, device)
        params = {k: p.detach().to(torch.float64) for k, p in parameters(network).items()}
        subject = Subject(graph, params, inputs, labels, eps, relaxations, config.clip)
        facts = {
            "eps": eps,
            "data": config.data.name,
            "split": options.split,
            "images": len(inputs),
            "checkpoint": checkpoint.name,
            "trained_with": config.relaxation.name,
            "method": config.method,
            "relaxations": {name: str(relaxation) for name, relaxation in relaxations.items()},
            "weights": subject.size,
            "norm_of_weights": subject.norm,
            "sigmas": {str(relative): subject.sigma(relative) for relative in options.sigmas},
            "seed": options.seed,
        }
        return Measured(run, node, config, subject, facts)


def _relaxation(config: RunConfig, name: str) -> Relaxation:
    return make_relaxation(config) if name == config.relaxation.name else build(name)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ConfigError(f"device={name}: {one_line(error)}") from error
    return device


def _checkpoint(directory: RunDirectory, asked: str) -> Path:
    if asked == "judged":
        return directory.judged
    return {"best": directory.checkpoints / BEST, "last": directory.checkpoints / LAST}.get(asked, Path(asked))


def _images(data: Any, options: Options, device: torch.device) -> tuple[Tensor, Tensor]:
    data.setup()
    test = options.split == "test"
    split = data.splits.test if test else data.splits.train
    rows = {"train": data.train_rows, "validation": data.validation_rows, "test": torch.arange(len(split))}
    chosen = rows[options.split][: options.images]
    if not len(chosen):
        raise ConfigError(f"split={options.split}: the run holds out no image (data.validation=0)")
    return as_float(split.inputs[chosen]).to(device, torch.float64), split.labels[chosen].to(device)
