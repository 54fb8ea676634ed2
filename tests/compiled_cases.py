"""Networks and helpers for tests of the compiled back-substitution."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from certtrain.bounds import Bounds, Box, build, margin_spec
from certtrain.bounds.executors import EXECUTORS, Compiled, Executor, TensorOperations
from certtrain.bounds.executors.compiled.bundling import Bundling
from certtrain.bounds.rows.descent import Descent
from certtrain.bounds.rows.selection import RowIndex, Selection
from certtrain.networks import Graph, Params, parameters, trace

RELAXATIONS = {
    "crown_ibp": {"name": "crown_ibp"},
    "deeppoly": {"name": "deeppoly"},
    "deeppoly_textbook": {"name": "deeppoly", "intersect": False},
    "hbox": {"name": "hbox"},
    "zonotope": {"name": "zonotope"},
}

Network = Callable[[], tuple[Graph, Params, Tensor]]


def wide() -> tuple[Graph, Params, Tensor]:
    """More channels than a vector holds, not a multiple of it; strides, paddings, a channel for each colour."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(20, 33, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(33, 5, (3, 2), stride=(1, 3)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 4 * 2, 40),
        nn.ReLU(),
        nn.Linear(40, 4),
    )
    graph = trace(network, (3, 12, 12))
    return graph, {k: p.detach() for k, p in parameters(network).items()}, torch.rand(3, 3, 12, 12)


def quiet() -> tuple[Graph, Params, Tensor]:
    """Most neurons are inactive, at some pixels all of them: products leave out what no ReLU lets through."""
    graph, params, inputs = wide()
    return graph, {k: p - 0.08 if k.endswith("bias") and len(p) > 4 else p for k, p in params.items()}, inputs


def awkward() -> tuple[Graph, Params, Tensor]:
    """Patches that leave the layer, paddings and strides larger than kernels, kernels that are no squares."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(2, 4, (1, 2), stride=(3, 4), padding=(2, 1)),
        nn.ReLU(),
        nn.Conv2d(4, 5, 1, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(5, 17, 2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(4),
    )
    network(torch.zeros(1, 2, 9, 11))
    graph = trace(network, (2, 9, 11))
    return graph, {k: p.detach() for k, p in parameters(network).items()}, torch.rand(3, 2, 9, 11)


COMPILED, TENSORS = EXECUTORS["auto"], EXECUTORS["tensors"]


def bounds(
    name: str, graph: Graph, params: Params, inputs: Tensor, executor: Executor = COMPILED, eps: float = 0.02
) -> Bounds:
    spec = margin_spec(torch.arange(len(inputs)) % graph.num_outputs, graph.num_outputs).to(inputs.dtype)
    return build(**RELAXATIONS[name], executor=executor).bound(graph, params, Box.linf(inputs, eps), spec)


def draw_statistics(network: nn.Module) -> None:
    """Of batch norms: random ones."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)


def curved() -> tuple[Graph, Params, Tensor]:
    """Lower lines with intercepts, a factor for each channel, activations one behind the other."""
    torch.manual_seed(2)
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.Sigmoid(),
        nn.Conv2d(6, 5, 2),
        nn.Hardtanh(-1.0, 0.0),
        nn.LeakyReLU(0.3),
        nn.Conv2d(5, 7, 2, padding=1),
        nn.BatchNorm2d(7),
        nn.ReLU6(),
        nn.Flatten(),
        nn.LazyLinear(9),
        nn.Tanh(),
        nn.Linear(9, 4),
    ).eval()
    network(torch.zeros(1, 2, 9, 9))
    network[3].bias.data.add_(0.2)  # so that many are above zero, where the next activation blocks them
    draw_statistics(network)
    graph = trace(network, (2, 9, 9))
    return graph, {k: p.detach() for k, p in parameters(network).items()}, torch.rand(3, 2, 9, 9)


def rows_of_places(*counts: int) -> RowIndex:
    """So many rows of each image's only position."""
    image = torch.arange(len(counts), dtype=torch.int32).repeat_interleave(torch.tensor(counts))
    return RowIndex(image, torch.zeros_like(image), torch.arange(len(image), dtype=torch.int32))


LAYOUTS = ["alone", "narrow bundles", "wide bundles"]


@dataclass(frozen=True)
class Always(Bundling):
    """One layout, whatever is fastest."""

    name: str

    def of_bounds(self, rows: RowIndex, sizes: Collection[int], most_rows: int) -> int | None:
        return {"alone": None, "narrow bundles": min(sizes), "wide bundles": max(sizes)}[self.name]

    def of_derivatives(self, rows: RowIndex, size: int, passing: float) -> int | None:
        return size


def in_layout(layout: str) -> Executor:
    """Compiled code that lays out all rows in one way, and their derivatives, too."""
    return TensorOperations((Compiled(Always(layout)),))


@dataclass(frozen=True)
class Counting(Executor):
    """Notes every call of another executor."""

    other: Executor
    calls: list[Selection] = field(default_factory=list)

    def covers(self, descent: Descent) -> int | None:
        return self.other.covers(descent)

    def lower(self, descent: Descent, selection: Selection, wanted: Tensor | None = None) -> Tensor:
        self.calls.append(selection)
        return self.other.lower(descent, selection, wanted)


def gradient(
    name: str, graph: Graph, params: Params, inputs: Tensor, executor: Executor = COMPILED, eps: float = 0.02
) -> Params:
    leaves = {k: p.clone().requires_grad_() for k, p in params.items()}
    lower = bounds(name, graph, leaves, inputs, executor, eps).lower
    weights = torch.linspace(-1, 1, lower.numel(), dtype=lower.dtype).reshape(lower.shape)
    return dict(zip(leaves, torch.autograd.grad((lower * weights).sum(), list(leaves.values())), strict=True))
