"""Networks on the CPU and the same ones on another device."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import zoo
from cases import make_case
from odd_networks import Apply
from torch import Tensor, nn

from certtrain.bounds import Box
from certtrain.networks import Graph, Params, parameters, trace
from certtrain.testing import Subject, subjects

# One of every kind: dense, convolutions with batch norm and groups, pooling, branches, curved activations and maxima,
# elements that move and constants.
NETWORKS = ("mlp", "strided", "dilated_and_grouped", "pooled", "residual", "curved", "moved")
DTYPES = (torch.float32, torch.float64)


def places(here: dict[str, torch.dtype], there: Sequence[str] = NETWORKS, dtypes: Sequence[torch.dtype] = DTYPES):
    """Arguments for `parametrize`: a few networks on a device that is not there, all of them on a GPU."""
    pretended = [("elsewhere", name, dtype) for name, dtype in here.items()]
    real = [pytest.param("cuda", name, dtype, marks=pytest.mark.gpu) for name in there for dtype in dtypes]
    return pytest.mark.parametrize(("device", "network", "dtype"), pretended + real, indirect=["device"])


# float32 sums in another order; bounds of deep networks are sums of sums.
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-4}


@dataclass(frozen=True)
class Placed:
    """A subject in one precision, on one device; `params` are leaves that derivatives are taken in."""

    graph: Graph
    params: Params
    inputs: Tensor
    labels: Tensor
    spec: Tensor

    @staticmethod
    def of(subject: Subject, dtype: torch.dtype, device: torch.device) -> "Placed":
        network = copy.deepcopy(subject.network).to(dtype).to(device)
        params = {name: p.detach().clone().requires_grad_() for name, p in parameters(network).items()}
        graph = trace(network, subject.graph.input_shape)
        inputs, spec = subject.inputs.to(dtype).to(device), subject.spec.to(dtype).to(device)
        return Placed(graph, params, inputs, subject.labels.to(device), spec)

    def box(self, eps: float) -> Box:
        return Box.linf(self.inputs, eps)


def moved() -> nn.Module:
    """With indices and constants as buffers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        Apply(lambda m, x: x[:, m.constant0], torch.tensor([2, 0, 1])),
        Apply(lambda m, x: x.transpose(2, 3)[:, :, ::2]),
        Apply(lambda m, x: torch.cat([x[:, 1:], 2 * x[:, :1]], 1) - m.constant0, torch.rand(3, 1, 1)),
        nn.ReflectionPad2d(1),
        nn.Conv2d(3, 2, 3),
        nn.Hardsigmoid(),
        nn.UpsamplingNearest2d(scale_factor=2),
        nn.Flatten(),
        nn.Linear(2 * 6 * 14, 4),
    )


def subject(name: str) -> Subject:
    if name == "moved":
        return Subject.of(moved(), zoo.IMAGE)
    return make_case(name) if name in zoo.NETWORKS else subjects()[name]


def assert_alike(found: Tensor, expected: Tensor) -> None:
    """Equal up to rounding that is relative to the largest number; `found` may be anywhere."""
    expected, found = expected.detach(), found.detach().to("cpu")
    size = 1 + float(expected.abs().max()) if expected.numel() else 1.0
    tolerance = TOLERANCES[expected.dtype]
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * size)
