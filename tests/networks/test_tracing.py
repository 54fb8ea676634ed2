"""Tracing: the graph computes what the module computes, and what has no rule is refused by name and position."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import zoo
from torch import Tensor, nn

from certtrain.errors import ConfigError, UnsupportedOperation
from certtrain.networks import Normalize, parameters, trace
from certtrain.networks.ops import LinearMap


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_the_graph_computes_the_network(name: str) -> None:
    network = zoo.make(name)
    graph = trace(network, zoo.IMAGE)
    x = torch.rand((4, *zoo.IMAGE), dtype=torch.float64)
    torch.testing.assert_close(graph.forward(parameters(network), x), network(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_every_linear_operation_has_its_adjoint_and_its_absolute_value(name: str) -> None:
    """<rows, W x> = <rows W, x>, and |W| x is the largest of W s x over signs s (where W x is one row)."""
    network = zoo.make(name)
    graph = trace(network, zoo.IMAGE)
    x = torch.rand((1, *zoo.IMAGE), dtype=torch.float64)
    values = graph.values(parameters(network), x)
    for op in graph.ops:
        if not isinstance(op, LinearMap):
            continue
        x, rows = torch.randn((2, 3, *op.in_shape)).double(), torch.randn((2, 3, *op.shape)).double()
        image, back = op.forward_linear(values, x), op.adjoint(values, rows)
        torch.testing.assert_close((rows * image).sum(), (back * x).sum())
        eye = torch.eye(x[0, 0].numel(), dtype=x.dtype).reshape(-1, *op.in_shape)
        matrix = op.forward_linear(values, eye).flatten(1).mT
        absolute = op.forward_abs(values, x).flatten(2)
        torch.testing.assert_close(absolute, x.flatten(2) @ matrix.abs().mT)
        at_zero = op.forward(values, torch.zeros_like(x))
        torch.testing.assert_close(op.forward(values, x) - at_zero, image)


def test_tracing_leaves_the_mode_of_every_layer() -> None:
    network = zoo.make("residual").train()
    network.norm.eval()
    trace(network, zoo.IMAGE)
    assert network.training
    assert not network.norm.training


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.used(x)


def test_operations_without_effect_are_left_out() -> None:
    assert [op.name for op in trace(Unused(), (3,)).ops] == ["x", "used"]


class Functional(nn.Module):
    """The same layers as functions, with a parameter that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(3))
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(F.linear(x, self.weight, bias=self.bias)), 0.5, training=self.training)
        x += x.relu()
        return self.tied(x)


def test_functional_layers_and_shared_parameters() -> None:
    network = Functional().eval()
    graph = trace(network, (3,))
    x = torch.randn(4, 3)
    torch.testing.assert_close(graph.forward(parameters(network), x), network(x))
    doubled = {k: 2 * p for k, p in parameters(network).items()}
    expected = torch.func.functional_call(network, doubled, (x,))
    torch.testing.assert_close(graph.forward(doubled, x), expected)


def sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class MixesImages(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 2)


class Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1.0


class Calls(nn.Module):
    """A layer, a parameter, and any function of them and the input."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.weight, self.function = nn.Linear(4, 4), nn.Parameter(torch.ones(3, 4)), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (Calls(lambda net, x: torch.cat([net.layer(x), x], 1)), (4,), r"'cat' \(cat\) at position 2 .*; supported are"),
        (Calls(lambda net, x: net.layer(x).chunk(2, 1)[0]), (4,), r"'chunk' \(chunk\) at position 2 .*; supported are"),
        (Calls(lambda net, x: net.weight), (4,), "output 'weight' is a constant"),
        (Calls(lambda net, x: torch.zeros(3, 4)), (4,), "is a constant: it does not depend on its input"),
        (
            Calls(lambda net, x: x + 2 * net.weight),
            (4,),
            "'mul' .*: it does not depend on the network's input",
        ),
        (Calls(lambda net, x: 2 * net.weight[0]), (4,), "does not depend on the network's input"),
        (Calls(lambda net, x: x.max(1)), (4,), "one tensor, not a tuple"),
        (Calls(lambda net, x: {"out": x}), (4,), "one tensor, not a tuple, list or dictionary"),
        (Calls(lambda net, x: x.size(0)), (4,), "one tensor, not int"),
        (sequence(nn.Linear(3, 3), nn.Sigmoid()), (3,), r"'1' \(Sigmoid\) at position 2"),
        (sequence(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.Flatten()), (1, 4, 4), "circular"),
        (sequence(nn.Conv2d(1, 1, 2, padding="same"), nn.Flatten()), (1, 4, 4), "symmetric"),
        (sequence(nn.MaxPool2d(2), nn.Flatten()), (1, 4, 4), "MaxPool2d"),
        (sequence(nn.AvgPool2d(2, divisor_override=3), nn.Flatten()), (1, 4, 4), "divisor_override"),
        (sequence(nn.BatchNorm1d(3, track_running_stats=False)), (3,), "running statistics"),
        (sequence(nn.Linear(3, 3)), (2, 3), "flat inputs"),
        (sequence(nn.Conv2d(1, 2, 3)), (1, 4, 4), "vector per image"),
        (sequence(nn.Linear(4, 2)), (3,), "does not accept inputs of shape"),
        (Branch(), (3,), "torch.fx cannot trace Branch"),
        (MixesImages(), (4,), "batch axis"),
        (Shift(), (3,), "only the sum of two layers' outputs"),
    ],
)
def test_what_has_no_rule_is_refused_in_one_line(network: nn.Module, shape: tuple, message: str) -> None:
    with pytest.raises(UnsupportedOperation, match=message) as caught:
        trace(network, shape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_is_refused_for_what_it_is(dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match=rf"float32 or float64, got {str(dtype)[6:]}: convert it with \.float\(\)"):
        trace(nn.Sequential(nn.Linear(3, 2)).to(dtype), (3,))


def test_a_network_of_buffers_only_has_their_type() -> None:
    network = nn.Sequential(Normalize([0.5], [0.25]), nn.Flatten()).double()
    x = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    assert torch.equal(trace(network, (1, 2, 2)).forward({}, x), network(x))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, image: Tensor, mask: Tensor | None = None, *rest: Tensor, active: bool = True) -> Tensor:
        y = self.layer(image)
        y = y if mask is None else y * mask
        return torch.relu(y) if active else y


def test_other_arguments_of_forward_keep_their_defaults() -> None:
    network, x = Masked(), torch.randn(4, 3)
    graph = trace(network, (3,))
    assert [op.name for op in graph.ops] == ["image", "layer", "relu"]
    torch.testing.assert_close(graph.forward(parameters(network), x), network(x))


def test_normalize_checks_its_numbers() -> None:
    with pytest.raises(ConfigError, match="std must be positive"):
        Normalize([0.1], [0.0])
    with pytest.raises(ConfigError, match="one of each per channel"):
        Normalize([0.1, 0.2], [1.0])


class Mutates(nn.Module):
    """The last layer reads what the ReLU left behind, although torch.fx records that it reads the layer before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        F.relu(y, inplace=True)
        return self.last(y)


class MutatesView(Mutates):
    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y.view(-1, 3).relu_()
        return self.last(y)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.relu = nn.Linear(3, 3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return self.relu(y) + y


@pytest.mark.parametrize("network", [Mutates(), Shared()])
def test_work_in_place_on_a_tensor_read_elsewhere_is_refused(network: nn.Module) -> None:
    with pytest.raises(UnsupportedOperation, match="works in place on a tensor that is read elsewhere"):
        trace(network, (3,))


def test_a_graph_that_computes_something_else_is_refused() -> None:
    """What torch.fx cannot see: a view changed in place, and a forward hook."""
    with pytest.raises(UnsupportedOperation, match="another function than the module itself"):
        trace(MutatesView(), (3,))
    hooked = nn.Sequential(nn.Linear(3, 2))
    hooked[0].register_forward_hook(lambda module, inputs, output: output + 1)
    with pytest.raises(UnsupportedOperation, match="another function than the module itself"):
        trace(hooked, (3,))


def test_in_place_layers_in_a_chain_are_fine() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).eval()
    x = torch.randn(4, 3)
    torch.testing.assert_close(trace(network, (3,)).forward(parameters(network), x), network(x))


def test_arguments_by_keyword() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(input=torch.flatten(input=x, start_dim=1))
            return torch.add(y, other=F.relu(input=y))

    network = Keywords().eval()
    x = torch.randn(5, 2, 2)
    torch.testing.assert_close(trace(network, (2, 2)).forward(parameters(network), x), network(x))
