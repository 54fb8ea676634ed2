"""Compiled evaluation of networks at points, and derivatives by the points, against torch's own."""

import pytest
import torch
from cases import needs_compiler
from torch import Tensor, nn

from certtrain.bounds.executors.compiled.evaluation import Evaluation
from certtrain.networks import Graph, Normalize, parameters, trace

pytestmark = needs_compiler

NETWORKS = {
    # A window that begins outside, one that leaves pixels over, channels that fill no vector, batch norm on both sides.
    "convolutions": (
        (3, 15, 14),
        [
            *(Normalize([0.1, 0.2, 0.3], [0.5, 0.4, 0.3]), nn.Conv2d(3, 9, 3, 1, 1), nn.BatchNorm2d(9), nn.ReLU()),
            *(nn.Conv2d(9, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 5, 3, 2, bias=False), nn.Flatten(), nn.ReLU()),
            *(nn.Linear(45, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10)),
        ],
    ),
    "flat": ((3, 2, 2), [nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3)]),
    "wide stride": ((1, 7, 6), [nn.Conv2d(1, 4, 2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)]),
    "one pixel left": ((2, 4, 4), [nn.Conv2d(2, 5, 4), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.Flatten(), nn.Linear(4, 2)]),
}


def made(name: str, dtype: torch.dtype) -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    shape, layers = NETWORKS[name]
    network = nn.Sequential(*layers).to(dtype).eval()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network, trace(network, shape)


def evaluation_of(graph: Graph, like: Tensor) -> Evaluation | None:
    params = {name: p.detach() for name, p in parameters(graph.module).items()}
    return Evaluation.of(graph, graph.values(params, like), like)


def differentiated(function: object, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    x = points.clone().requires_grad_()
    outputs = function(x)
    return outputs.detach(), torch.autograd.grad((outputs * weights).sum(), x)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_derivatives_are_torch_s(name: str, dtype: torch.dtype) -> None:
    """Of any number of points, one after the other: less than a vector, several bundles, less again."""
    network, graph = made(name, dtype)
    found = evaluation_of(graph, torch.zeros(1, dtype=dtype))
    assert found is not None
    for some in (5, 16, 41, 1, 0):
        points = torch.randn(some, *graph.input_shape, dtype=dtype)
        weights = torch.randn(some, graph.num_outputs, dtype=dtype)
        ours, theirs = (differentiated(f, points, weights) for f in (found, network))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_derivatives_are_those_of_the_points_that_were_asked_whatever_came_between() -> None:
    network, graph = made("convolutions", torch.float64)
    found = evaluation_of(graph, torch.zeros(1, dtype=torch.float64))
    assert found is not None
    one, other = (torch.randn(3, *graph.input_shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    first, _ = found(one), found(other)
    torch.testing.assert_close(
        torch.autograd.grad(first.sum(), one)[0], torch.autograd.grad(network(one).sum(), one)[0]
    )


def test_a_number_that_is_none_stays_with_its_image() -> None:
    network, graph = made("convolutions", torch.float32)
    found = evaluation_of(graph, torch.zeros(1))
    assert found is not None
    points = torch.rand(4, *graph.input_shape)
    points[2, 0, 3, 3] = torch.nan
    assert found(points)[2].isnan().all()
    torch.testing.assert_close(found(points)[[0, 1, 3]], network(points)[[0, 1, 3]])


def test_what_it_does_not_know_is_left_to_tensor_operations() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layer(x)

    like = torch.zeros(1)
    for network in (
        Residual(),
        nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2)),
        nn.Sequential(nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 2), nn.ReLU()),
    ):
        assert evaluation_of(trace(network, (4,)), like) is None
    _, graph = made("flat", torch.float32)
    assert evaluation_of(graph, like.double()) is None
    found = evaluation_of(graph, like)
    assert found is not None
    with pytest.raises(ValueError, match="points must be"):
        found(torch.zeros(2, 3, 2, 1))
