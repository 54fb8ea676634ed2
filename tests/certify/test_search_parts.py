"""The parts of branch and bound: goals of several forms, roots, leaves, pools."""

import time
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
import torch
from certify.fakes import diagonal, linear
from certify.search_cases import decide, fully_split, question, random_network, root_of, uniform, whole
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from certtrain.bounds import Bounds, Box, margin_spec
from certtrain.bounds.optimised.choice import Choice
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.certify.milp import exact_minimum
from certtrain.certify.network import Network
from certtrain.certify.search import leaves, points
from certtrain.certify.search.branching import NOT_SPLIT, Split, candidates, children
from certtrain.certify.search.inputs import Halving
from certtrain.certify.search.relaxed import Goals, outwards
from certtrain.certify.search.search import Pool
from certtrain.certify.search.subdomains import Subdomains
from certtrain.deadline import OutOfTime, until

INFINITY = float("inf")


def test_contradictory_goals_are_refuted_at_once() -> None:
    """No output has y0 <= -1 and y0 >= 1, whatever the network: the mean of both forms is 1."""
    network, box = random_network(0), Box.linf(uniform(1, 3, seed=0), 0.5)
    forms = torch.tensor([[[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]]).double()
    found = decide(network, box, Goals(forms, torch.ones(1, 2).double()))
    assert (found.ending, found.examined) == ("closed", 1)
    assert 0 < found.lower <= 1 + 1e-9
    # y0 <= -1 and y0 >= 3 need other weights where forms have other scales.
    found = decide(network, box, Goals(forms * torch.tensor([1.0, 7.0])[:, None], torch.tensor([[1.0, 21.0]]).double()))
    assert found.ending == "closed"


@pytest.mark.parametrize("seed", range(6))
def test_conjunctions_of_forms(seed: int) -> None:
    """Unsafe where both forms are at most a limit; the limit is chosen around what points of the box attain."""
    network, box = random_network(seed), Box.linf(uniform(1, 3, seed=seed), 0.4)
    forms = (uniform(1, 2, 3, seed=seed) - 0.5) * 2
    x = box.lower + (box.upper - box.lower) * uniform(20000, 3, seed=seed)
    with torch.no_grad():
        lowest = float((network.logits(x) @ forms[0].mT).amax(1).amin())
    above = decide(network, box, Goals(forms, torch.full((1, 2), -lowest - 0.01).double()))
    assert above.ending == "counterexample"
    assert above.counterexample is not None
    values = network.logits(above.counterexample.double()[None]) @ forms[0].mT
    assert (values <= lowest + 0.01).all()
    # Far below what was met: refuted, or a point is shown that sampling missed.
    below = decide(network, box, Goals(forms, torch.full((1, 2), -lowest + 0.2).double()))
    assert below.ending == "closed"
    assert 0 < below.lower <= 0.2 + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_goals_of_one_form_agree_with_mixed_integer_programs(seed: int) -> None:
    network, box = random_network(seed), Box.linf(uniform(1, 3, seed=seed), 0.4)
    spec = margin_spec([seed % 3], 3).double()
    minimum = exact_minimum(network.graph, network.values[torch.float64], box, spec).upper[0]
    for distance, ending in ((1e-3, "closed"), (-1e-3, "counterexample")):
        found = decide(network, box, Goals.margins(spec[0], minimum - distance))
        assert found.ending == ending
        assert found.lower <= distance + 1e-6


def test_several_goals_are_refuted_one_by_one() -> None:
    """One that is not suffices for a counterexample."""
    network, box = Network.of(diagonal(), (2,)), Box.linf(torch.tensor([[0.7, 0.3]]).double(), 0.1)
    spec = torch.tensor([[1.0, -1.0], [-1.0, 0.0]]).double()
    assert decide(network, box, Goals.margins(spec, torch.tensor([0.0, -2.0]).double())).lower == pytest.approx(0.2)
    found = decide(network, box, Goals.margins(spec, torch.tensor([0.0, -0.65]).double()))
    assert found.ending == "counterexample"
    assert found.lower < 0


@pytest.mark.parametrize("value", [0.1, -0.1, 1e-50, -1e-50, 1e-46, -1e-46, 0.5, 0.0, 1 / 3, -1 / 3])
def test_float32_boxes_contain_float64_ones(value: float) -> None:
    """And the sign of a bound is kept: what float64 decides is decided in float32, too."""
    x = torch.tensor([value]).double()
    low, high = outwards(x, x)
    assert (low.double() <= x).all()
    assert (x <= high.double()).all()
    assert ((low >= 0) == (x >= 0)).all()
    assert ((high <= 0) == (x <= 0)).all()


@pytest.mark.parametrize("forms", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_leaves_are_decided(seed: int, forms: int) -> None:
    """The bound is the minimum of an affine function on a polytope: attained at the point, below all others."""
    network, box, root = question(seed, forms)
    leaf = fully_split(root, box.center[0])
    columns = candidates(root, leaf.decisions, leaf.goal, leaf.choice, 3).columns
    assert (columns == NOT_SPLIT).all()
    (solved,) = leaves.solve(root, leaf)
    values = network.values[torch.float64]
    outputs = root.graph.forward(values, solved.point[None].clamp(box.lower, box.upper))
    assert float(root.double.goals.largest(outputs, leaf.goal)) == pytest.approx(solved.lower, abs=1e-6)
    x = box.lower + (box.upper - box.lower) * uniform(5000, 3, seed=seed)
    results = network.graph.results(values, x)
    z = root.columns(lambda part: results[part.read], x)
    signs = leaf.decisions[0]
    inside = (z * signs >= 0).all(1)
    found = root.double.goals.largest(results[-1], torch.zeros(len(x)).long())
    assert (found[inside] >= solved.lower - 1e-9).all()


def test_a_leaf_without_points_is_refuted() -> None:
    """x0 >= 0.6 and x0 <= 0.4 cannot be: the multipliers of the splits prove it, though every margin is negative."""
    module = nn.Sequential(
        linear([[1.0, 0.0], [1.0, 0.0]], [-0.6, -0.4]), nn.ReLU(), linear([[0.0, 0.0], [1.0, 1.0]], [-1.0, 0.0])
    )
    network, box = Network.of(module, (2,)), Box.linf(torch.tensor([[0.5, 0.5]]).double(), 0.3)
    root = root_of(network, box, Goals.margins(margin_spec([0], 2)[0].double()))
    leaf = children(children(whole(root), Split.plain(torch.tensor([0])))[0:1], Split.plain(torch.tensor([1])))
    assert leaves.solve(root, leaf[1:2])[0].lower > 0
    assert leaves.solve(root, leaf[0:1])[0].lower < 0


@pytest.mark.parametrize("forms", [1, 2])
def test_leaves_that_are_solved_together_are_solved_as_alone(forms: int) -> None:
    """With different numbers of decisions, one of them with none."""
    _, box, root = question(2, forms)
    parts = [fully_split(root, x) for x in (box.center[0], box.lower[0], box.upper[0])]
    halves = children(whole(root), Split.plain(root.free[0].nonzero().flatten()[:1]))
    several = whole(root).joined([*parts, halves])
    together = leaves.solve(root, several)
    for number, found in enumerate(together):
        (alone,) = leaves.solve(root, several[number : number + 1])
        assert found.lower == pytest.approx(alone.lower, abs=1e-9)
        torch.testing.assert_close(found.point, alone.point)
    assert len({found.lower for found in together}) >= 3


def test_without_time_or_finite_numbers_a_leaf_is_left_open() -> None:
    _, box, root = question(0)
    leaf = fully_split(root, box.center[0])
    with until(time.perf_counter() - 1), pytest.raises(OutOfTime):
        leaves.solve(root, leaf)
    root.double.goals.constants[0, 0] = torch.nan
    assert leaves.solve(root, leaf)[0].lower == -INFINITY


def test_a_leaf_in_rational_arithmetic() -> None:
    """The smallest value of 3 x1 - x0 - 3/8 on 1/2 <= x1 <= x0 <= 3/4 is that of a corner."""
    module = nn.Sequential(
        linear([[1.0, -1.0], [0.0, 1.0]], [0.0, -0.5]), nn.ReLU(), linear([[-1.0, 2.0], [0.0, 0.0]], [0.625, 0.0])
    )
    # Where x0 >= x1 and x1 >= 1/2: -(x0 - x1) + 2 (x1 - 1/2) + 5/8 = 3 x1 - x0 - 3/8.
    network, box = Network.of(module, (2,)), Box.linf(torch.tensor([[0.5, 0.5]]).double(), 0.25)
    root = root_of(network, box, Goals.margins(margin_spec([0], 2)[0].double()))
    (solved,) = leaves.solve(root, fully_split(root, torch.tensor([0.7, 0.6]).double()))
    half, most = Fraction(1, 2), Fraction(3, 4)
    corners = [(half, half), (most, half), (most, most)]
    exact = min(3 * b - a - Fraction(3, 8) for a, b in corners)
    assert exact == Fraction(3, 8)
    assert Fraction(solved.lower) <= exact + Fraction(1, 10**12)
    assert solved.lower == pytest.approx(float(exact), abs=1e-9)
    assert solved.point.tolist() == pytest.approx([0.75, 0.5])


def test_the_worst_are_taken_first() -> None:
    pool = Pool()
    assert (len(pool), pool.worst) == (0, INFINITY)
    for bounds in ([3.0, -1.0], [2.0, -5.0, 0.0]):
        count = len(bounds)
        choice = Choice(torch.zeros(count, 1), torch.zeros(count, 1))
        zeros = torch.zeros(count, 1).long()
        pool.add(Subdomains(zeros.char(), choice, torch.tensor(bounds), zeros[:, 0], zeros, zeros))
    assert (len(pool), pool.worst) == (5, -5.0)
    before = pool.nbytes
    assert sorted(pool.take(2).lower.tolist()) == [-5, -1]
    assert (len(pool), pool.worst) == (3, 0.0)
    assert pool.nbytes <= 2 * before * 3 // 5
    assert pool.take(1).lower.tolist() == [0]
    assert pool.nbytes == before * 2 // 5
    assert sorted(pool.take(10).lower.tolist()) == [2, 3]
    assert not len(pool)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), max_size=12), st.integers(0, 99))
def test_what_is_taken_in_any_order_is_what_was_added(turns: list[tuple[int, int]], seed: int) -> None:
    """Always the worst, none twice, and what belongs to a bound stays with it."""
    pool, left, numbers = Pool(), [], iter(uniform(200, seed=seed).tolist())
    for added, taken in turns:
        lower = torch.tensor([next(numbers) for _ in range(added)]).double()
        choice, none = Choice(lower[:, None] * 2, lower[:, None] * 3), torch.zeros(added, 1)
        pool.add(Subdomains(none.char(), choice, lower, torch.arange(added), none.long(), none))
        left = sorted(left + lower.tolist())
        assert (len(pool), pool.worst) == (len(left), left[0] if left else INFINITY)
        if left:
            found = pool.take(taken)
            assert sorted(found.lower.tolist()) == left[:taken]
            assert torch.equal(found.choice.slopes[:, 0], found.lower * 2)
            left = left[taken:]
    assert len(pool) == len(left)


def test_an_infinite_bound_closes_no_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it pass for a search in which nothing is stuck."""
    network, box = random_network(0), Box.linf(uniform(1, 3, seed=0), 0.4)
    monkeypatch.setattr(leaves, "solve", lambda root, given: [leaves.Leaf(INFINITY, root.outer[0][0])] * len(given))
    monkeypatch.setattr(points, "deepest_unsafe", lambda *given: None)
    monkeypatch.setattr(points, "descend", lambda *given: None)
    never = Goals(torch.zeros(1, 1, 3).double(), torch.full((1, 1), -1.0).double())
    found = decide(network, box, never)
    assert found.ending == "exhausted"
    assert not found.lower > 0


def test_an_infinite_bound_closes_no_box() -> None:
    network, box = random_network(0), Box.linf(uniform(1, 3, seed=0), 0.4)

    @dataclass(frozen=True)
    class Infinite(DeepPoly):
        def analyse(self, *given, **named):
            found = super().analyse(*given, **named)
            return replace(found, bounds=Bounds(torch.full_like(found.bounds.lower, INFINITY), None))

    root = root_of(network, box, Goals.margins(margin_spec([0], 3).double()[0]))
    with torch.no_grad():
        found = Halving(root, relaxation=Infinite()).run()
    assert found.ending == "exhausted"
    assert not found.lower > 0
