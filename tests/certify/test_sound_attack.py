"""Whatever complete search proves in sound arithmetic survives roundings that an adversary chooses.

Rounding errors of float32 are too small to be met by chance. Here the unit roundoff of what is claimed is a thousandth
or more, and the adversary follows gradients: it finds a good part of all that the bounds give away.
"""

import math
from dataclasses import dataclass, replace
from itertools import product
from random import Random
from typing import Any

import pytest
import torch
from certify.search_cases import uniform
from roundings import smallest_value
from summation import results
from torch import Tensor, nn

import certtrain
from certtrain import Property
from certtrain.attacks import PGD
from certtrain.bounds import Box, margin_spec
from certtrain.bounds.rounding import sizes
from certtrain.certify import Attack
from certtrain.certify.arithmetic import Sound
from certtrain.certify.network import Network
from certtrain.certify.search import leaves
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.search import Effort, Outcome
from certtrain.certify.search.whole import BranchAndBound

UNIT = 2.0**-12
# Without steps for slopes and multipliers, nearly all is left to linear programming.
USUAL, TO_THE_LEAVES = Effort(descents=0, candidates=1), Effort(descents=0, candidates=1, rounds=(0,))


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims are about an arithmetic with far larger errors than float32."""
    monkeypatch.setattr(sizes, "SINGLE", UNIT)


class Residual(nn.Module):
    """Twice the input and what layers make of it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.layers(x) + x)


KINDS = ("plain", "deep", "normed", "residual", "cancelling", "leaky", "images")


def layers_of(kind: str) -> tuple[list[nn.Module], tuple[int, ...]]:
    """Layers and the shape of inputs."""
    if kind == "images":
        convolutions = [nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Conv2d(2, 2, 2, stride=2, padding=1), nn.ReLU()]
        return [*convolutions, nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(2, 3)], (1, 4, 4)
    middle = {
        "plain": [nn.Linear(6, 6), nn.ReLU()],
        "deep": [nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU()],
        "normed": [nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()],
        "residual": [Residual(nn.Linear(6, 6), nn.ReLU()), nn.ReLU()],
        "cancelling": [nn.Linear(6, 6), nn.ReLU()],
        "leaky": [nn.Linear(6, 6), nn.LeakyReLU(0.2)],
    }[kind]
    return [nn.Linear(3, 6), nn.ReLU(), *middle, nn.Linear(6, 3)], (3,)


@dataclass
class Case:
    """A random network on a box, and forms of its outputs whose largest is to be positive."""

    network: Network
    box: Box
    forms: Tensor

    @staticmethod
    def of(kind: str, seed: int, forms: int = 1, eps: float = 0.3) -> "Case":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers, shape = layers_of(kind)
            module = nn.Sequential(*layers)
            for parameter in module.parameters():
                parameter.data.mul_(2.0 if parameter.dim() > 1 else 1.0)
            for layer in module:
                if isinstance(layer, nn.BatchNorm1d):
                    layer.running_mean.normal_()
                    layer.running_var.uniform_(0.5, 2.0)
            if kind == "cancelling":
                first = layers[0].weight.data
                first[:, :2] *= 8
                first[:, 1] = -first[:, 0] * (1 + 2.0**-6)
            rows = torch.randn(forms, 3).double()
        box = Box.linf(uniform(1, *shape, seed=seed), eps)
        return Case(Network.of(module.eval().requires_grad_(False), shape), box, rows)

    def value(self, outputs: Tensor) -> Tensor:
        """What is to be positive, without the shift."""
        return (outputs @ self.forms.mT).amax(1)

    def points(self, count: int = 2000) -> Tensor:
        shape = self.network.graph.input_shape
        return self.box.lower + uniform(count, *shape, seed=1) * (self.box.upper - self.box.lower)

    def values(self, points: Tensor) -> Tensor:
        return self.value(self.network.graph.forward(dict(self.network.values[torch.float64]), points))

    def goals(self, shift: float) -> Goals:
        return Goals(self.forms[None], torch.full((1, len(self.forms)), shift, dtype=torch.float64))

    def search(self, shift: float, search: BranchAndBound) -> Outcome:
        found = self.network
        return search.decide(found.graph, found.values, self.box, self.goals(shift), math.inf, Sound())

    def least_shift(self, search: BranchAndBound, halvings: int = 5) -> tuple[float, float, Outcome]:
        """The smallest shift that is proved, the smallest that could be, and what the search says of the former."""
        smallest = -float(self.values(self.points()).min())
        low, high = smallest, smallest + 0.05
        while (found := self.search(high, search)).ending != "closed":
            low, high = high, 2 * high - smallest
            assert high < smallest + 100
        for _ in range(halvings):
            middle = (low + high) / 2
            if (better := self.search(middle, search)).ending == "closed":
                high, found = middle, better
            else:
                low = middle
        return high, smallest, found

    def attacked(self, unit: float = UNIT, most: int = 96) -> float:
        """The smallest value that an adversary finds."""
        points = self.points()
        lowest = points[self.values(points).argsort()[:most]]
        return smallest_value(self.network, self.box, lowest, self.value, unit)


def check(case: Case, search: BranchAndBound) -> tuple[float, int]:
    """Attacks what is just proved: the share of what was given away that the adversary finds, and the parts."""
    shift, smallest, found = case.least_shift(search)
    value = case.attacked()
    assert value + shift > 0
    assert value + shift >= found.lower > 0
    return (-smallest - value) / (shift - smallest), found.examined


SEARCHES = {
    "neurons": BranchAndBound(effort=USUAL, splitting="neurons"),
    "inputs": BranchAndBound(splitting="inputs"),
}
CASES = [
    ("plain", 2, 1, 0.6, "neurons"),
    ("deep", 2, 2, 0.3, "neurons"),
    ("images", 1, 1, 0.12, "neurons"),
    ("residual", 1, 1, 0.4, "neurons"),
    ("normed", 2, 1, 0.6, "neurons"),
    ("cancelling", 0, 1, 0.3, "neurons"),
    ("cancelling", 1, 1, 0.3, "inputs"),
    ("leaky", 2, 1, 0.8, "inputs"),
]


@pytest.mark.parametrize(("kind", "seed", "forms", "eps", "splitting"), CASES)
def test_no_rounding_refutes_what_is_just_proved(
    coarse: None, kind: str, seed: int, forms: int, eps: float, splitting: str
) -> None:
    share, parts = check(Case.of(kind, seed, forms, eps), SEARCHES[splitting])
    assert parts >= 3
    assert share > 0.3


@pytest.mark.parametrize(("kind", "forms"), [("plain", 1), ("deep", 2)])
def test_no_rounding_refutes_what_linear_programs_prove(
    coarse: None, monkeypatch: pytest.MonkeyPatch, kind: str, forms: int
) -> None:
    proved, solve = [], leaves.solve

    def counted(*given: Any) -> list[leaves.Leaf]:
        proved.extend(found := solve(*given))
        return found

    monkeypatch.setattr(leaves, "solve", counted)
    share, _ = check(Case.of(kind, 3, forms), BranchAndBound(effort=TO_THE_LEAVES, splitting="neurons"))
    assert sum(leaf.lower > 0 for leaf in proved) >= 3
    assert share > 0.3


@pytest.mark.parametrize(("kind", "eps", "splitting"), [("plain", 0.6, "neurons"), ("leaky", 0.8, "inputs")])
def test_the_adversary_refutes_what_smaller_errors_would_allow(
    monkeypatch: pytest.MonkeyPatch, kind: str, eps: float, splitting: str
) -> None:
    monkeypatch.setattr(sizes, "SINGLE", UNIT / 16)
    case = Case.of(kind, 2, 1, eps)
    shift, _, _ = case.least_shift(SEARCHES[splitting], halvings=8)
    assert case.attacked() + shift < 0


@pytest.mark.slow
@pytest.mark.parametrize("unit", [2.0**-15, 2.0**-9])
def test_no_rounding_refutes_what_is_just_proved_of_many_networks(monkeypatch: pytest.MonkeyPatch, unit: float) -> None:
    monkeypatch.setattr(sizes, "SINGLE", unit)
    for seed, kind in product(range(2), KINDS):
        case = Case.of(kind, seed, 1 + seed % 2, 0.12 if kind == "images" else 0.4)
        for splitting in ("neurons",) if kind in ("images", "leaky") else ("neurons", "inputs"):
            shift, _, found = case.least_shift(SEARCHES[splitting], halvings=2)
            assert case.attacked(unit) + shift >= found.lower > 0, (seed, kind, splitting)


@pytest.mark.parametrize("splitting", SEARCHES)
def test_decisions_survive_roundings(coarse: None, splitting: str) -> None:
    case = Case.of("plain", 2, 2, 0.4)
    shift, smallest, _ = case.least_shift(SEARCHES[splitting], halvings=3)
    for given, proved in ((shift, True), (smallest + 0.2 * (shift - smallest), False)):
        rows = [(case.forms.tolist(), [-given] * len(case.forms))]
        property = Property.from_constraints(case.box.lower[0], case.box.upper[0], rows)
        search = replace(SEARCHES[splitting], memory_mb=1)
        attack = PGD(steps=5, restarts=1)
        found = certtrain.decide(case.network.module, property, search=search, attack=attack, arithmetic="sound")
        assert (found.status == "unsat") is (found.bound > 0) is proved
        assert case.attacked() + given >= found.bound


@pytest.mark.parametrize("cascade", ["first", "all"])
def test_verdicts_survive_roundings(coarse: None, cascade: str) -> None:
    """Margins of a class that is raised step by step: whichever verifier proves them."""
    plain, eps = Case.of("deep", 2, 1, 0.4), 0.2
    proved = set()
    for step in range(4):
        case = Case.of("deep", 2, 1, 0.4)
        case.network.module[-1].bias.data[0] += 0.15 * step
        box = Box.linf(plain.box.center, eps)
        image, label = box.center, int(case.network.logits(box.center).argmax())
        case = Case(Network.of(case.network.module, (3,)), box, margin_spec([label], 3)[0].double())
        verifiers = ["ibp", "bab"]
        (verdict,) = certtrain.certify(
            case.network.module,
            image,
            torch.tensor([label]),
            eps,
            relaxations=verifiers,
            clip=None,
            arithmetic="sound",
            cascade=cascade,
            attack=Attack(steps=0),
        )
        smallest = smallest_value(case.network, box, case.points(200), lambda y, c=case: (y @ c.forms.mT).amin(1), UNIT)
        for name, margin in verdict.margins.items():
            if margin is not None and margin > 0:
                proved.add(name)
                assert smallest >= margin
    assert "bab" in proved


@pytest.mark.parametrize("splitting", SEARCHES)
def test_float32_in_no_order_refutes_what_is_just_proved(splitting: str) -> None:
    """At corners and random points of a box, where terms that are thousands of times as large cancel."""
    case = Case.of("plain", 0, 1, 0.4)
    first = case.network.module[0].weight.data
    first[:, :2] = 4096 * (1 + first[:, :2])
    first[:, 1] = -first[:, 0]
    center, radius = torch.tensor([[1.0, 1.0, 0.5]]).double(), torch.tensor([[2.0**-12, 2.0**-12, 0.4]]).double()
    case = Case(Network.of(case.network.module, (3,)), Box(center - radius, center + radius), case.forms)
    shift, _, _ = case.least_shift(SEARCHES[splitting], halvings=0)
    corners = torch.cartesian_prod(*torch.cat([case.box.lower, case.box.upper]).mT)
    x = torch.cat([corners, case.points(500)]).float()
    x = x[((x >= case.box.lower) & (x <= case.box.upper)).all(1)]
    for order in range(10):
        found = results(case.network.graph, dict(case.network.values[torch.float32]), x, Random(order))[-1]
        assert (case.value(found.double()) + shift > 0).all()
