"""Networks, images and boxes to bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.plans import Plan, plan_for, weights_for
from benchmarks.settings import NO_DATA, Settings
from benchmarks.weights import checkpoint, train
from certtrain.bounds import Box, Relaxation, margin_spec
from certtrain.cli.assembly.data import make_source
from certtrain.cli.assembly.network import make_network
from certtrain.cli.configuration.compose import compose_jobs
from certtrain.cli.configuration.schema import RunConfig, parse, plain
from certtrain.cli.rundir.recorded import parse_command
from certtrain.data.batches import as_float
from certtrain.networks import Graph, Params, parameters
from certtrain.training.checkpoints import load_network

EPS = 0.1
IMAGES = 512


@dataclass(frozen=True)
class Images:
    """Images [n, channels, height, width] in [0, 1], and their classes [n]."""

    inputs: Tensor
    labels: Tensor

    def first(self, count: int) -> Images:
        """The first few."""
        return Images(self.inputs[:count], self.labels[:count])

    def save(self, path: Path) -> None:
        """For a process of its own."""
        torch.save({"inputs": self.inputs, "labels": self.labels}, path)

    @staticmethod
    def saved(path: Path) -> Images:
        """What `save` wrote."""
        return Images(**torch.load(path, weights_only=True))

    @staticmethod
    def random() -> Images:
        """Noise in the shape of MNIST."""
        generator = torch.Generator().manual_seed(0)
        return Images(torch.rand(IMAGES, 1, 28, 28, generator=generator), torch.arange(IMAGES) % 10)

    @staticmethod
    def test(data: str, path: str | None) -> Images:
        """Test images of a data set.

        Raises:
            DataError: If they cannot be found.
        """
        source = replace(make_source(configuration(data, "mlp")), path=path)
        source.check()
        pair = source.load().test
        return Images(as_float(pair.inputs[:IMAGES].clone()), pair.labels[:IMAGES].clone())


@dataclass(frozen=True)
class Case:
    """A network with weights, and boxes with the margins to bound on them.

    Attributes:
        graph: The network.
        params: Its parameters, detached.
        images: Centres of the boxes.
    """

    graph: Graph
    params: Params
    images: Images

    @cached_property
    def box(self) -> Box:
        """The boxes of radius EPS."""
        return Box.linf(self.images.inputs, EPS)

    @cached_property
    def spec(self) -> Tensor:
        """The margins over all wrong classes."""
        return margin_spec(self.images.labels, self.graph.num_outputs)

    def lower(self, relaxation: Relaxation) -> Tensor:
        """Lower bounds [batch, rows] without gradients."""
        with torch.no_grad():
            return relaxation.bound(self.graph, self.params, self.box, self.spec, sides="lower").lower

    def gradients(self, relaxation: Relaxation) -> Params:
        """Lower bounds, and the gradient of their sum in the parameters."""
        params = {name: p.clone().requires_grad_() for name, p in self.params.items()}
        with torch.enable_grad():
            relaxation.bound(self.graph, params, self.box, self.spec, sides="lower").lower.sum().backward()
        return {name: p.grad for name, p in params.items() if p.grad is not None}

    def call(self, relaxation: Relaxation, grad: bool) -> Callable[[], object]:
        """One of the two, ready to be timed."""
        return lambda: self.gradients(relaxation) if grad else self.lower(relaxation)


def make_case(network: str, images: Images, trained: Path | None = None, data: str = "mnist", *overrides: str) -> Case:
    """A case for a network of conf/model: weights from a checkpoint, or random ones, always the same.

    Args:
        network: A choice in conf/model.
        images: To bound.
        trained: A checkpoint of the network.
        data: The choice in conf/data that the network is made for.
        *overrides: Of the network's configuration, such as `model.widths=[]`.

    Raises:
        CerttrainError: If the checkpoint is absent or of another network.
    """
    config = configuration(data, network, *overrides)
    torch.manual_seed(0)
    module, graph = make_network(config, make_source(config))
    if trained is not None:
        load_network(module, trained)
    return Case(graph, {name: p.detach() for name, p in parameters(module).items()}, images)


def configuration(data: str, network: str, *overrides: str) -> RunConfig:
    """certtrain's configuration with a choice of data and network."""
    (composed,) = compose_jobs(parse_command([f"data={data}", f"model={network}", *overrides]))
    return parse(plain(composed))


@dataclass(frozen=True)
class Bench:
    """What all sections share.

    Attributes:
        settings: The command line.
        say: Shows in one line what is being done.
    """

    settings: Settings
    say: Callable[[str], None]

    @property
    def plan(self) -> Plan:
        """The sizes."""
        return plan_for(self.settings)

    @property
    def weights(self) -> tuple[str, ...]:
        """Which weights to measure with."""
        return weights_for(self.settings)

    @property
    def images_file(self) -> Path:
        """The images, for processes of their own."""
        return self.settings.out / "images.pt"

    @cached_property
    def images(self) -> Images:
        """MNIST's test images, or random ones; read once."""
        data = self.settings.data
        if data == NO_DATA:
            images = Images.random()
        else:
            self.say("reading MNIST")
            images = Images.test("mnist", data)
        images.save(self.images_file)
        return images

    def case(self, network: str, weights: str, batch: int) -> Case:
        """A network on a batch of images; weights that are missing are trained."""
        trained = None
        if weights != "random":
            train(self.settings, network, self.say)
            trained = checkpoint(self.settings.out, network)
        return make_case(network, self.images.first(batch), trained)
