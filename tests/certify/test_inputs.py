"""Boxes of inputs that are halved: the same answers as exact minima and splits of neurons, wherever inputs are few."""

import math
import time

import pytest
import torch
from certify.fakes import linear
from certify.few_inputs import INPUTS, smooth
from torch import nn

from certtrain.bounds import Box, build
from certtrain.certify.network import Network
from certtrain.certify.search.inputs import Halving, HalvingEffort
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.root import Root
from certtrain.certify.search.search import Outcome
from certtrain.certify.search.whole import BranchAndBound
from certtrain.certify.verifiers.bab import Bab
from certtrain.errors import ConfigError
from certtrain.testing import compare_with_oracle, oracle_question

SECONDS = 60.0
# Dense networks of two to eight inputs, and residual ones of five.
SEEDS = (0, 4, 8, 12, 16, 2, 6, 10)


def decided(network: Network, box: Box, goals: Goals, seconds: float = SECONDS, **options: object) -> Outcome:
    search = BranchAndBound(**{"splitting": "inputs", **options})
    return search.decide(network.graph, network.values, box, goals, time.perf_counter() + seconds)


def above(row: list[float], limit: float) -> Goals:
    """That one form of the outputs is larger than a limit."""
    return Goals.margins(torch.tensor([row], dtype=torch.float64), torch.tensor([limit], dtype=torch.float64))


def cube(center: list[float], radius: float) -> Box:
    middle = torch.tensor([center], dtype=torch.float64)
    return Box(middle - radius, middle + radius)


def distance(offset: float) -> Network:
    """|x0 - x1| + offset."""
    layers = linear([[1.0, -1.0], [-1.0, 1.0]]), nn.ReLU(), linear([[1.0, 1.0]], [offset])
    return Network.traced(nn.Sequential(*layers), (2,))


def network(*layers: nn.Module, inputs: int = 2, seed: int = 0) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(*layers)
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -1.5, 1.5)
    return Network.traced(module.eval().requires_grad_(False), (inputs,))


def test_both_splittings_agree_with_exact_minima() -> None:
    answers = [compare_with_oracle(Bab(splitting=how), SEEDS, SECONDS) for how in ("inputs", "neurons")]
    assert answers[0] == answers[1]
    positive = {seed for seed in SEEDS if oracle_question(seed).minimum > 0}
    assert set(answers[0].verified) == positive
    assert set(answers[0].falsified) == set(SEEDS) - positive


@pytest.mark.parametrize("center", [[0.0] * INPUTS, [0.3, -0.2, 0.4, 0.1, -0.5]])
def test_a_network_like_acas_xu(center: list[float]) -> None:
    """Half of each input's range: beyond what splits of neurons close in minutes."""
    subject, box, row = smooth(), cube(center, 0.5), [1.0, -1.0, 0.0, 0.0, 0.0]
    share = torch.rand((20_000, INPUTS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = subject.logits(box.lower + (box.upper - box.lower) * share) @ torch.tensor(row, dtype=torch.float64)
    lowest, spread = float(values.min()), float(values.std())
    safe = decided(subject, box, above(row, lowest - spread))
    assert safe.ending == "closed"
    assert safe.lower > 0
    unsafe = decided(subject, box, above(row, lowest + 0.1 * spread))
    assert unsafe.ending == "counterexample"
    assert unsafe.lower <= 0
    found = unsafe.counterexample
    assert ((box.lower[0] <= found) & (found <= box.upper[0])).all()
    assert float(subject.logits(found[None])[0] @ torch.tensor(row, dtype=torch.float64)) <= lowest + 0.1 * spread


def test_limits_on_both_sides_of_a_minimum() -> None:
    """|x0 - x1| + 0.01 has the minimum 0.01 on the diagonal, where one bound of the box says -0.99."""
    box = cube([0.5, 0.5], 0.5)
    assert decided(distance(0.01), box, above([1.0], 0.008)).ending == "closed"
    found = decided(distance(0.01), box, above([1.0], 0.012))
    assert found.ending == "counterexample"
    x0, x1 = found.counterexample.tolist()
    assert abs(x0 - x1) <= 0.002 + 1e-6


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Sigmoid(), nn.LeakyReLU(0.2)])
def test_any_activation(activation: nn.Module) -> None:
    subject = network(nn.Linear(2, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, 2))
    box = cube([0.2, 0.1], 0.4)
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 81, dtype=torch.float64)] * 2) * 0.4 + box.center
    lowest = float((subject.logits(grid) @ torch.tensor([1.0, -1.0]).double()).min())
    assert decided(subject, box, above([1.0, -1.0], lowest - 0.05)).ending == "closed"
    assert decided(subject, box, above([1.0, -1.0], lowest + 0.01)).ending == "counterexample"


def test_auto_counts_inputs_that_have_a_width() -> None:
    """Tanh is split by its inputs only: eleven of them are too many, nine of them fixed are not."""
    layers = nn.Linear(11, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)
    subject, center = network(*layers, inputs=11), torch.full((1, 11), 0.3, dtype=torch.float64)
    radius = torch.zeros(11).double()
    radius[:2] = 0.4
    few, many = Box(center - radius, center + radius), Box(center - 0.4, center + 0.4)
    grid = center + radius * (2 * torch.rand((5000, 11), generator=torch.Generator().manual_seed(0)).double() - 1)
    limit = float((subject.logits(grid) @ torch.tensor([1.0, -1.0]).double()).min()) - 0.1
    assert decided(subject, few, above([1.0, -1.0], limit), splitting="auto").ending == "closed"
    assert decided(subject, few, above([1.0, -1.0], limit), splitting="neurons").ending == "exhausted"
    spec = torch.tensor([[[1.0, -1.0]]]).double()
    bound = build("deeppoly").bound(subject.graph, subject.values[torch.float64], many, spec, "lower").lower
    goals = above([1.0, -1.0], float(bound) + 0.05)
    assert decided(subject, many, goals, splitting="auto").ending == "exhausted"


def test_several_rows_of_several_goals() -> None:
    """Outputs are x0 and -x0: a conjunction holds in a strip that no corner of the box is in."""
    subject = Network.traced(linear([[1.0], [-1.0]]), (1,))
    box = cube([0.0], 1.0)
    # 0.1 <= x0 <= 0.2, or x0 >= 2
    forms = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]], dtype=torch.float64)
    found = decided(subject, box, Goals(forms, torch.tensor([[0.1, -0.2], [2.0, 2.0]], dtype=torch.float64)))
    assert found.ending == "counterexample"
    assert 0.1 <= float(found.counterexample) <= 0.2
    # 0.1 <= x0 <= 0.05, or x0 >= 2
    found = decided(subject, box, Goals(forms, torch.tensor([[0.1, -0.05], [2.0, 2.0]], dtype=torch.float64)))
    assert found.ending == "closed"
    assert found.lower == pytest.approx(0.025, abs=0.025)


def test_a_box_without_width() -> None:
    subject, point = smooth(), [0.1, 0.2, 0.3, 0.4, 0.5]
    box, row = cube(point, 0.0), [0.0, 0.0, 1.0, 0.0, 0.0]
    value = float(subject.logits(box.center)[0, 2])
    assert decided(subject, box, above(row, value - 1e-6)).ending == "closed"
    assert decided(subject, box, above(row, value + 1e-3)).ending == "counterexample"
    between = decided(subject, box, above(row, value - 1e-15))
    assert between.ending in ("closed", "exhausted")


def test_a_goal_that_is_just_met_nowhere_ends_with_time_or_memory() -> None:
    """relu(x0 - x1) - relu(x0 - x1) + 1e-9 is just above the limit; no bound of a box on the diagonal sees that."""
    layers = linear([[1.0, -1.0], [1.0, -1.0]]), nn.ReLU(), linear([[1.0, -1.0]], [1e-9])
    subject = Network.traced(nn.Sequential(*layers), (2,))
    box, goals = cube([0.5, 0.5], 0.5), above([1.0], 0.0)
    began = time.perf_counter()
    found = decided(subject, box, goals, 1.0)
    assert found.ending == "time"
    assert time.perf_counter() - began < 2.1
    assert -0.2 < found.lower <= 0
    assert _limited(subject, box, goals).ending == "memory"


def _limited(subject: Network, box: Box, goals: Goals) -> Outcome:
    found = build("deeppoly").analyse(subject.graph, subject.values[torch.float64], box, goals.forms[:1], "lower")
    root = Root.of(subject.graph, subject.values, box, found.hidden, goals)
    return Halving(root, math.inf, HalvingEffort(batch=64), memory=10_000).run()


def test_what_is_not_finite_claims_nothing() -> None:
    subject = network(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    for values in subject.values.values():
        values["2.weight"][0, 0] = math.nan
    found = decided(subject, cube([0.5, 0.5], 0.1), above([1.0], -100.0), 2.0)
    assert found.ending in ("time", "exhausted")
    assert not found.lower > 0


def test_an_unknown_splitting_is_refused() -> None:
    with pytest.raises(ConfigError, match="splitting must be one of auto, neurons, inputs, got 'both'"):
        Bab(splitting="both")


@pytest.mark.parametrize("at", [1e6, 0.5, 0.0])
def test_neighbours_in_float64_are_not_halved(monkeypatch: pytest.MonkeyPatch, at: float) -> None:
    """There is nothing between them: what is open then stays open, and the search ends."""
    monkeypatch.setattr("certtrain.certify.search.points.deepest_unsafe", lambda *given: None)
    monkeypatch.setattr("certtrain.certify.search.points.descend", lambda *given: None)
    ends = torch.tensor([[at, at]], dtype=torch.float64), torch.tensor([[at + math.ulp(at)] * 2], dtype=torch.float64)
    found = decided(distance(0.0), Box(*ends), above([0.0], 1.0), 5.0)
    assert found.ending == "exhausted"
    assert found.lower <= 0


def test_conjunctions_do_not_depend_on_the_default_type() -> None:
    forms = Goals(torch.tensor([[[1.0], [-1.0]]]).double(), torch.ones(1, 2).double())
    torch.set_default_dtype(torch.float64)
    try:
        found = decided(distance(0.0), cube([0.5, 0.5], 0.5), forms, splitting="neurons")
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.ending == "closed"
