"""Small networks and questions for branch and bound."""

import math

import torch
from torch import Tensor, nn

from certtrain.bounds import Box, build
from certtrain.certify.network import Network
from certtrain.certify.search.root import Goals, Root
from certtrain.certify.search.search import Effort, Outcome, Search

USUAL = Effort()
# Splitting alone looks for counterexamples.
NO_DESCENT = Effort(descents=0)


def uniform(*shape: int, seed: int) -> Tensor:
    """Numbers between 0 and 1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_network(seed: int, inputs: int = 3, width: int = 8, activation: nn.Module | None = None) -> Network:
    """Two hidden layers, three classes; the second one's activation may be another than ReLU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), activation or nn.ReLU()]
        module = nn.Sequential(*layers, nn.Linear(width, 3))
        for parameter in module.parameters():
            parameter.data.mul_(2.0 if parameter.dim() > 1 else 1.0)
    return Network.of(module.requires_grad_(False), (inputs,))


def root_of(network: Network, box: Box, goals: Goals) -> Root:
    """With deeppoly's bounds of pre-activations."""
    hidden = build("deeppoly").analyse(network.graph, network.values[torch.float64], box).hidden
    return Root.of(network.graph, network.values, box, hidden, goals)


def decide(network: Network, box: Box, goals: Goals, *, effort: Effort = USUAL, deadline: float = math.inf) -> Outcome:
    """The answer of a whole search, by splits of neurons."""
    with torch.no_grad():
        return Search(root_of(network, box, goals), deadline, effort).run()
