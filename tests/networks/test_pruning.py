"""Networks without neurons that are zero on a box: the same function there."""

import pytest
import torch
from torch import Tensor, nn

from certtrain.bounds import Box, build
from certtrain.bounds.optimised.region import zero_outputs
from certtrain.certify.network import Network
from certtrain.networks import Graph
from certtrain.networks.pruning import Pruned, prune


class Shared(nn.Module):
    """One matrix twice, with different neurons off each time; no bias in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(3, 12), nn.Linear(12, 12, bias=False), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        for _ in range(2):
            x = torch.relu(self.twice(x))
        return self.last(x)


class Residual(nn.Module):
    """The first layer is read twice, the last hidden one by a matrix alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(3, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        y = torch.relu(self.inner(x))
        return self.last(x + torch.relu(self.inner(y)))


def chain() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))


def pruned(make: type[nn.Module], seed: int, radius: float) -> tuple[Network, Box, Pruned]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network.of(make().requires_grad_(False), (3,))
        box = Box.linf(torch.rand(1, 3, dtype=torch.float64), radius)
    hidden = build("deeppoly").analyse(network.graph, network.values[torch.float64], box).hidden
    return network, box, prune(network.graph, zero_outputs(network.graph, hidden))


def sizes(graph: Graph) -> list[int]:
    return [op.size for op in graph.ops]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [chain, Shared, Residual])
def test_a_pruned_network_computes_the_same_on_the_box(make: type[nn.Module], seed: int) -> None:
    network, box, found = pruned(make, seed, 0.1)
    values = network.values[torch.float64]
    x = box.lower + (box.upper - box.lower) * torch.rand(50, 3, dtype=torch.float64)
    whole, smaller = network.graph.results(values, x), found.graph.results(found.values(values), x)
    for index, (one, other) in enumerate(zip(whole, smaller, strict=True)):
        assert other.shape[1:] == found.graph.ops[index].shape
        torch.testing.assert_close(found.layer(index, one), other)


def test_neurons_are_gone_where_only_matrices_read_them() -> None:
    network, _, found = pruned(chain, 0, 0.1)
    gone = [before - after for before, after in zip(sizes(network.graph), sizes(found.graph), strict=True)]
    assert gone[0] == gone[-1] == 0
    assert gone[1] == gone[2] > 0
    network, _, found = pruned(Residual, 0, 0.1)
    first, second, third = (index for index, _ in network.graph.activations)
    assert found.graph.ops[first].size == 12, "what an addition reads stays whole"
    assert found.graph.ops[second].size < 12, "what lies between two matrices does not"
    assert found.graph.ops[third].size == 12


def test_two_operations_of_one_matrix_keep_different_parts_of_it() -> None:
    network, _, found = pruned(Shared, 1, 0.02)
    values = found.values(network.values[torch.float64])
    names = [op.weight for op in found.graph.ops if hasattr(op, "weight")]
    assert len(set(names)) == 4
    assert values[names[1]].shape != values[names[2]].shape
    assert found.graph.ops[0].shape == network.graph.ops[0].shape


def test_of_a_layer_that_is_off_one_neuron_stays() -> None:
    network, box, _ = pruned(chain, 0, 0.1)
    off = {index: torch.ones(12, dtype=torch.bool) for index, _ in network.graph.activations}
    found = prune(network.graph, off)
    assert [op.size for op in found.graph.ops if op.inputs][:-1] == [1, 1, 1, 1]
    assert found.graph.results(found.values(network.values[torch.float64]), box.center)[-1].shape == (1, 3)


def test_a_network_without_anything_off_stays_as_it_is() -> None:
    network, _, _ = pruned(chain, 0, 0.1)
    found = prune(network.graph, {index: torch.zeros(12, dtype=torch.bool) for index, _ in network.graph.activations})
    assert found.graph.ops == network.graph.ops
    assert found.values(network.values[torch.float64]).keys() == network.values[torch.float64].keys()
