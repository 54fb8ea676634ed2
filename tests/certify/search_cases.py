"""Small networks and questions for branch and bound."""

import math

import pytest
import torch
from certify.fakes import linear
from torch import Tensor, nn

from certtrain.bounds import Box, build
from certtrain.certify.milp import exact_minimum
from certtrain.certify.network import Network
from certtrain.certify.search.branching import Split, children
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.root import Root
from certtrain.certify.search.search import Effort, Outcome, Search
from certtrain.certify.search.subdomains import Subdomains

SQUARE = Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double())
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


def above(network: Network, box: Box, row: list[float], limit: float) -> Root:
    """Of the goal that a form of the outputs is at most a limit."""
    return root_of(network, box, Goals.margins(torch.tensor([row]).double(), torch.tensor([limit]).double()))


def diagonal() -> Network:
    """relu(x0 + x1) - relu(-x0 - x1), which is x0 + x1."""
    layers = linear([[1.0, 1.0], [-1.0, -1.0]]), nn.ReLU(), linear([[1.0, -1.0]])
    return Network.traced(nn.Sequential(*layers), (2,))


def hard_goal(seed: int, slack: float) -> tuple[Network, Root, Tensor, float]:
    """A network, a goal so much below the smallest value of a form, that form, and the goal's limit."""
    network, box = random_network(seed, inputs=4), Box.linf(uniform(1, 4, seed=seed), 0.5, None)
    row = torch.tensor([1.0, -1.0, 0.0]).double()
    exact = exact_minimum(network.graph, network.values[torch.float64], box, row[None, None])
    limit = float(exact.upper) - slack
    return network, root_of(network, box, Goals.margins(row[None], torch.tensor([limit]).double())), row, limit


def question(seed: int, forms: int = 1) -> tuple[Network, Box, Root]:
    """A network, a box, and one goal of so many forms."""
    network, box = random_network(seed), Box.linf(uniform(1, 3, seed=seed), 0.4)
    data = uniform(1, forms, 3, seed=seed) - 0.5
    return network, box, root_of(network, box, Goals(data, uniform(1, forms, seed=seed + 1) - 0.5))


def memory_given(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What searches may take, in the order of their turns from now on; 0 where nobody says."""
    asked: list[int] = []
    run = Search.run

    def noted(self: Search, pause: float = math.inf, most: float = math.inf, memory: int | None = None) -> object:
        asked.append(0 if memory is None else memory)
        return run(self, pause, most, memory)

    monkeypatch.setattr(Search, "run", noted)
    return asked


def whole(root: Root) -> Subdomains:
    """The first goal on the whole box."""
    none = torch.zeros((1, root.space.size), dtype=torch.int8)
    nobody = torch.zeros(1, 0)
    goal = torch.zeros(1).long()
    return Subdomains(none, root.first_choice(1), torch.tensor([-math.inf]), goal, nobody.long(), nobody)


def fully_split(root: Root, at: Tensor) -> Subdomains:
    """The subdomain of all signs that a point has, [*input_shape], and what it chooses."""
    results = root.graph.results(dict(root.values[torch.float64]), at[None])
    z = root.columns(lambda part: results[part.read], at[None])
    found = whole(root)
    for column in root.free[0].nonzero().flatten().tolist():
        pair = children(found, Split.plain(torch.tensor([column])))
        found = pair[0:1] if z[0, column] >= 0 else pair[1:2]
    return found


def decide(network: Network, box: Box, goals: Goals, *, effort: Effort = USUAL, deadline: float = math.inf) -> Outcome:
    """The answer of a whole search, by splits of neurons."""
    with torch.no_grad():
        return Search(root_of(network, box, goals), deadline, effort).run()
