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
        (Calls(lambda net, x: net.layer(x).sort(1).values), (4,), r"at position 2 .*; supported are"),
        (
            Calls(lambda net, x: torch.cat([net.layer(x), net.weight], 1)),
            (4,),
            r"'cat' \(cat\) at position 2 .*constants",
        ),
        (Calls(lambda net, x: net.layer(x) * x), (4,), "product of two layers' outputs is not linear"),
        (Calls(lambda net, x: 1 / x), (4,), "divided by a constant"),
        (Calls(lambda net, x: x.flip(0)), (4,), "elements of one image go to another"),
        (Calls(lambda net, x: x[:, :1] + net.layer.bias), (4,), "larger than the layer that it meets"),
        (Calls(lambda net, x: net.weight), (4,), "output 'weight' is a constant"),
        (Calls(lambda net, x: torch.zeros(3, 4)), (4,), "is a constant: it does not depend on its input"),
        (
            Calls(lambda net, x: x + 2 * net.weight),
            (4,),
            "another one for every image",
        ),
        (Calls(lambda net, x: x + net.weight[0] ** 2), (4,), "numbers or registered tensors, at most reshaped"),
        (Calls(lambda net, x: 2 * net.weight[0]), (4,), "'mul' is a constant: it does not depend on its input"),
        (Calls(lambda net, x: x.max(1)), (4,), "one tensor, not a tuple"),
        (Calls(lambda net, x: {"out": x}), (4,), "one tensor, not a tuple, list or dictionary"),
        (Calls(lambda net, x: x.size(0)), (4,), "one tensor, not int"),
        (sequence(nn.Linear(3, 3), nn.Softplus()), (3,), r"'1' \(Softplus\) at position 2"),
        (
            sequence(nn.MaxPool2d(2, return_indices=True), nn.Flatten()),
            (1, 4, 4),
            "does not accept inputs|return_indices",
        ),
        (sequence(nn.AdaptiveAvgPool2d(3), nn.Flatten()), (1, 4, 4), "must divide"),
        (sequence(nn.AvgPool2d(2, divisor_override=3), nn.Flatten()), (1, 4, 4), "divisor_override"),
        (sequence(nn.BatchNorm1d(3, track_running_stats=False)), (3,), "running statistics"),
        (sequence(nn.Linear(3, 3)), (2, 3), "flat inputs"),
        (sequence(nn.Conv2d(1, 2, 3)), (1, 4, 4), "vector per image"),
        (sequence(nn.Linear(4, 2)), (3,), "does not accept inputs of shape"),
        (Branch(), (3,), r"torch.fx cannot trace Branch \(.*test_tracing.py, line \d+\): .* on shapes, not on values"),
        (sequence(nn.Linear(3, 3), nn.Softmax(1)), (3,), r"'1' \(Softmax\) .*: a network returns logits: leave it out"),
        (MixesImages(), (4,), "batch axis"),
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


class Everything(nn.Module):
    """Constants, branches side by side, moved elements, windows of all kinds, functions instead of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.same, self.circular = (
            nn.Conv2d(4, 4, 2, padding="same"),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        )
        self.first, self.up = nn.Conv2d(2, 4, 3, padding="same"), nn.ConvTranspose2d(4, 4, 3, 2, 1, output_padding=1)
        self.weight, self.scale = nn.Parameter(torch.randn(4, 2, 3, 3)), nn.Parameter(torch.randn(1, 4, 1, 1))
        self.elements, self.last = nn.Parameter(torch.randn(6, 8)), nn.Linear(4, 3)
        self.pool, self.leaky = nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.LeakyReLU(0.2)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3, 0.4]))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.leaky(self.first(x)), torch.tanh(F.conv2d(x, self.weight, padding=1))
        y = F.relu6(self.same(torch.cat([a, b], 1)[:, [0, 3, 5, 7]])) - 0.5 * a
        y = 3 - (self.circular(y) / 2 + self.mean[None, :, None, None]) * self.scale + self.elements
        left, right = y.chunk(2, 1)
        y = self.leaky(self.up(self.pool(torch.cat([right, left], 1)).sigmoid()))
        y = F.pad(y, (1, 0, 0, 1), value=0.3).permute(0, 2, 3, 1).transpose(1, 3).clamp(min=-0.2)
        return self.last(torch.neg(y).mean((2, 3)))


class Series(nn.Module):
    """One dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv1d(2, 4, 3, 2, padding=1), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardtanh(self.norm(self.conv(x)))
        return self.last(F.avg_pool1d(F.max_pool1d(x, 2), 2).mean(-1))


def twice() -> nn.Module:
    layer, relu = nn.Linear(4, 4), nn.ReLU()
    return nn.Sequential(layer, relu, layer, relu, nn.Linear(4, 3))


def roomy() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(2, 3, 2, 1, dilation=2, output_padding=1), nn.Flatten(), nn.LazyLinear(2))


@pytest.mark.parametrize(
    ("network", "shape"),
    [(Everything(), (2, 6, 8)), (Series(), (2, 20)), (twice(), (4,)), (roomy(), (2, 4, 3))],
    ids=["everything", "series", "a module used twice", "an output padding as large as the stride"],
)
def test_what_the_tables_know(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Also with other parameters than those that were traced."""
    network(torch.zeros(1, *shape))
    network = network.double().eval()
    graph, x = trace(network, shape), torch.randn((4, *shape), dtype=torch.float64)
    for factor in (1, 2):
        params = {k: factor * p for k, p in parameters(network).items()}
        expected = torch.func.functional_call(network, params, (x,))
        torch.testing.assert_close(graph.forward(params, x), expected, rtol=0, atol=1e-12)
    values = graph.values(parameters(network), x)
    for op in graph.ops:
        if isinstance(op, LinearMap):
            point, rows = torch.randn((2, 3, *op.in_shape)).double(), torch.randn((2, 3, *op.shape)).double()
            image, back = op.forward_linear(values, point), op.adjoint(values, rows)
            torch.testing.assert_close((rows * image).sum(), (back * point).sum())
