"""Networks with boxes and margins that relaxations are checked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certtrain.bounds import Box, margin_spec
from certtrain.networks import Graph, Params, parameters, trace


@dataclass(frozen=True)
class Subject:
    """A network, a batch of boxes with some zero-width pixels, and margins to bound.

    Attributes:
        network: In float64 and eval mode; its last bias has one number per class.
        graph: The same, traced.
        params: Its parameters, detached.
        inputs: Centres of the boxes, [batch, *input_shape].
        labels: The right classes, [batch].
    """

    network: nn.Module
    graph: Graph
    params: Params
    inputs: Tensor
    labels: Tensor

    @staticmethod
    def of(network: nn.Module, input_shape: tuple[int, ...], batch: int = 5) -> Subject:
        """With random inputs, of which some pixels are 0 or 1: clipping leaves them less room."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.rand((batch, *input_shape), generator=generator, dtype=torch.float64)
        network = network.double().eval()
        graph = trace(network, input_shape)
        params = {name: p.detach() for name, p in parameters(network).items()}
        labels = torch.arange(batch) % graph.num_outputs
        return Subject(network, graph, params, inputs.mul(1.4).sub(0.2).clamp(0, 1), labels)

    def box(self, eps: float) -> Box:
        """The L-infinity balls of a radius, clipped to [0, 1]."""
        return Box.linf(self.inputs, eps)

    @property
    def spec(self) -> Tensor:
        """The margins over all wrong classes."""
        return margin_spec(self.labels, self.graph.num_outputs).double()

    def margins(self, x: Tensor) -> Tensor:
        """[..., batch, rows] at points [..., batch, *input_shape]."""
        shape = self.graph.input_shape
        logits = self.network(x.reshape(-1, *shape)).reshape(*x.shape[: x.ndim - len(shape)], -1)
        return (self.spec @ logits[..., None]).squeeze(-1)


class _Residual(nn.Module):
    """Branches that meet in a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.long = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.short, self.norm, self.last = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Linear(3 * 7 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.long(torch.relu(self.short(x))) + x)
        return self.last(x.flatten(1))


def _fully_connected() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(84, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 4))


def _convolutional() -> nn.Module:
    layers = [nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 0)), nn.ReLU(), nn.Conv2d(4, 3, 2, 2, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(3 * 3 * 3, 4))


def _curved() -> nn.Module:
    layers = [nn.Conv2d(2, 3, 3), nn.Tanh(), nn.MaxPool2d(2), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(12, 6)]
    return nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(6, 4))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "fully_connected": _fully_connected,
    "convolutional": _convolutional,
    "residual": _Residual,
    "curved": _curved,
}


def subjects() -> dict[str, Subject]:
    """Fully connected, convolutional, residual, and with curved activations and maxima; weights are always the same."""
    found = {}
    for name, make in NETWORKS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = make()
        for parameter in network.parameters():
            parameter.data.mul_(2.0 if parameter.dim() > 1 else 1.0)
        found[name] = Subject.of(network, (2, 7, 6))
    return found
