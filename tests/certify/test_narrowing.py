"""Bounds that hold wherever a goal is met, and searches on boxes that were narrowed by them."""

import math
import time

import pytest
import torch
from certify.fakes import linear
from certify.search_cases import random_network, root_of, uniform
from torch import Tensor, nn

from certtrain.bounds import Box
from certtrain.certify.arithmetic import Arithmetic, arithmetic_named
from certtrain.certify.milp import exact_minimum
from certtrain.certify.network import Network
from certtrain.certify.search import goalwise, narrowing, tree
from certtrain.certify.search.goalwise import Goalwise
from certtrain.certify.search.narrowing import Narrowed, Narrowing
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.root import Root
from certtrain.certify.search.search import BARELY, Effort, Ending, Outcome, Search
from certtrain.certify.search.tree import Tree
from certtrain.certify.search.whole import BranchAndBound
from certtrain.certify.soundness import SoundnessError
from certtrain.certify.verifiers.bab import Bab
from certtrain.deadline import OutOfTime, until
from certtrain.errors import ConfigError
from certtrain.testing import compare_with_oracle, oracle_question

SQUARE = Box(-torch.ones(1, 2).double(), torch.ones(1, 2).double())
# Dense, convolutional and residual networks.
SEEDS = range(8)


def above(network: Network, box: Box, row: list[float], limit: float) -> Root:
    """Of the goal that a form of the outputs is at most a limit."""
    return root_of(network, box, Goals.margins(torch.tensor([row]).double(), torch.tensor([limit]).double()))


def diagonal() -> Network:
    """relu(x0 + x1) - relu(-x0 - x1), which is x0 + x1."""
    layers = linear([[1.0, 1.0], [-1.0, -1.0]]), nn.ReLU(), linear([[1.0, -1.0]])
    return Network.traced(nn.Sequential(*layers), (2,))


def narrow(root: Root) -> Root | None:
    with torch.no_grad():
        found = Narrowing().narrow(Narrowed.of(root, 0))
    return None if found is None else found.root


def test_a_neuron_is_decided_where_the_output_says_so() -> None:
    found = narrow(above(diagonal(), SQUARE, [1.0], -1.0))
    assert found is not None
    assert found.decided.tolist() == [[-1, 1]]
    # Where x0 + x1 <= -1, the first pre-activation is between -2 and -1; once it is decided, bounds are good enough.
    assert -1.0 <= float(found.bounds.upper[0, 0]) <= 0.0
    assert 0.0 <= float(found.bounds.lower[0, 1]) <= 1.0


def test_nothing_is_left_where_there_is_no_counterexample() -> None:
    assert narrow(above(diagonal(), SQUARE, [1.0], -2.01)) is None
    assert narrow(above(diagonal(), SQUARE, [1.0], -1.99)) is not None


def sometimes_unsafe(seed: int, forms: int) -> tuple[Network, Root, Tensor]:
    """A network, a goal that about a twentieth of the inputs meets, and some of these."""
    network = random_network(seed, inputs=4)
    box = Box.linf(uniform(1, 4, seed=seed), 0.5, None)
    x = box.lower + (box.upper - box.lower) * uniform(4000, 4, seed=seed + 1)
    rows = torch.randn((forms, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = network.logits(x) @ rows.T
    limit = values.amax(1).quantile(0.05)
    root = root_of(network, box, Goals(rows[None], (-limit).expand(1, forms)))
    return network, root, x[(values <= limit).all(1)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("forms", [1, 2])
def test_bounds_hold_at_all_counterexamples(seed: int, forms: int) -> None:
    network, root, unsafe = sometimes_unsafe(seed, forms)
    assert len(unsafe) >= 200
    found = narrow(root)
    assert found is not None
    results = network.graph.results(dict(network.values[torch.float64]), unsafe)
    z = found.columns(lambda part: results[part.read], unsafe)
    assert (z >= found.bounds.lower).all()
    assert (z <= found.bounds.upper).all()
    assert (found.bounds.lower >= root.bounds.lower).all()
    widths = [(one.bounds.upper - one.bounds.lower)[root.free].sum() for one in (root, found)]
    assert widths[1] < 0.99 * widths[0], "it is of use"
    signs = found.decided.expand(len(z), -1)
    assert ((z * signs) >= 0).all()


def test_rows_that_do_not_fit_into_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    _, root, _ = sometimes_unsafe(3, 1)
    found = narrow(root)
    monkeypatch.setattr(narrowing, "MEMORY", 3 * root.bytes_per_row)
    again = narrow(root)
    assert found is not None
    assert again is not None
    torch.testing.assert_close(again.bounds.lower, found.bounds.lower)
    torch.testing.assert_close(again.bounds.upper, found.bounds.upper)


@pytest.mark.parametrize("arithmetic", ["float64", "sound"])
def test_answers_are_those_of_the_oracle(arithmetic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    narrowed: list[Narrowed | None] = []
    original = Narrowing.narrow

    def counted(self: Narrowing, known: Narrowed) -> Narrowed | None:
        narrowed.append(original(self, known))
        return narrowed[-1]

    monkeypatch.setattr(Narrowing, "narrow", counted)
    monkeypatch.setattr(goalwise, "FIRST", 0)
    judged: Arithmetic = arithmetic_named(arithmetic, "arithmetic")
    found = compare_with_oracle(Bab(splitting="neurons").judged_in(judged), SEEDS, 60.0)
    assert not found.left_open
    assert found.verified == tuple(seed for seed in SEEDS if oracle_question(seed).minimum > 0)
    assert sum(one is None for one in narrowed) >= 2, "narrowing alone refutes goals"


@pytest.mark.parametrize("seed", [2, 7, 11])
def test_goals_by_themselves_are_refuted_and_met_like_all_together(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    monkeypatch.setattr(goalwise, "TURN_S", 1e-6)
    network, box = random_network(seed, inputs=4), Box.linf(uniform(1, 4, seed=seed), 0.5, None)
    x = box.lower + (box.upper - box.lower) * uniform(4000, 4, seed=seed)
    spec = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]).double()
    lowest = (network.logits(x) @ spec.T).amin(0)
    for limits in (lowest - 0.3 * lowest.abs(), lowest + torch.tensor([0.05, -1.0])):
        root = root_of(network, box, Goals.margins(spec, limits))
        with torch.no_grad():
            one, both = Goalwise(root).run(), Search(root).run()
        assert both is not None
        assert one.ending == both.ending
        if one.ending == "counterexample":
            assert one.counterexample is not None
            assert ((network.logits(one.counterexample[None].double()) @ spec.T)[0] <= limits).any()


def test_of_what_is_refuted_by_contradiction_no_margin_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    root = above(diagonal(), SQUARE, [1.0], -2.5)
    root = Root.of(root.graph, root.values, SQUARE, _loose(root), Goals.margins(_row(1.0), _row(-2.5)[0]))
    found = Goalwise(root).run()
    assert found.ending == "closed"
    assert found.lower == BARELY > 0


def test_what_was_stuck_before_goals_are_searched_by_themselves_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    _, root, _, _ = hard_goal(1, 0.05)
    assert Goalwise(root).run().ending == "closed"
    original = Search.left

    def left(self: Search) -> object:
        # As if a leaf of another goal had come to nothing.
        self._stuck = -0.5
        return original(self)

    monkeypatch.setattr(Search, "left", left)
    found = Goalwise(root).run()
    assert found.ending == "exhausted"
    assert found.lower == -0.5


@pytest.mark.parametrize("lower", [0.0, -1.0, math.nan])
def test_nothing_is_closed_by_a_bound_that_is_not_positive(lower: float) -> None:
    with pytest.raises(SoundnessError, match="everything is proved, with a bound of"):
        Outcome("closed", lower, None, 1)


@pytest.mark.parametrize("ending", ["time", "memory", "exhausted", "counterexample"])
def test_what_is_not_closed_has_no_positive_bound(ending: Ending) -> None:
    assert Outcome(ending, 0.5, None, 1).lower == 0.0
    assert Outcome(ending, -0.5, None, 1).lower == -0.5
    assert math.isnan(Outcome(ending, math.nan, None, 1).lower)


def test_a_bound_of_float32_alone_is_none_of_a_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is open may have a positive bound in float32: it was not proved."""
    monkeypatch.setattr(goalwise, "FIRST", 0)
    monkeypatch.setattr(Root, "proved", lambda root, decisions, *_: torch.full((len(decisions),), -0.1).double())
    _, root, _, _ = hard_goal(1, 5.0)
    with torch.no_grad():
        found = Goalwise(root, time.perf_counter() + 2.0, narrowing=Narrowing(rounds=0)).run()
    assert found.ending != "closed"
    assert not found.lower > 0


def test_an_infinite_bound_refutes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Root, "proved", lambda root, decisions, *_: torch.full((len(decisions),), math.inf).double())
    _, root, _, _ = hard_goal(1, 5.0)
    monkeypatch.setattr(narrowing.Layer, "bounds", lambda layer, root, *_: (*_ends(layer, root), layer))
    assert narrow(root) is not None


def _ends(layer: narrowing.Layer, root: Root) -> tuple[Tensor, Tensor]:
    return root.bounds.lower[0, layer.part.columns], root.bounds.upper[0, layer.part.columns]


def test_what_was_taken_out_of_a_search_is_not_taken_for_closed() -> None:
    _, root, _, _ = hard_goal(1, 0.05)
    search = Search(root)
    with torch.no_grad():
        assert search.run(most=0) is None
        search.left()
        with pytest.raises(AssertionError, match="taken out"):
            search.run()


def test_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    question = oracle_question(4)
    over = time.perf_counter() - 1
    search = BranchAndBound(splitting="neurons")
    found = search.decide(
        question.network.graph, question.network.values, question.box, Goals.margins(question.spec[0]), over
    )
    assert found.ending == "time"
    root = root_of(question.network, question.box, Goals.margins(question.spec[0]))
    with until(over), pytest.raises(OutOfTime), torch.no_grad():
        Narrowing().narrow(Narrowed.of(root, 0))


def hard_goal(seed: int, slack: float) -> tuple[Network, Root, Tensor, float]:
    """A network, a goal so much below the smallest value of a form, that form, and the goal's limit."""
    network, box = random_network(seed, inputs=4), Box.linf(uniform(1, 4, seed=seed), 0.5, None)
    row = torch.tensor([1.0, -1.0, 0.0]).double()
    exact = exact_minimum(network.graph, network.values[torch.float64], box, row[None, None])
    limit = float(exact.upper) - slack
    return network, root_of(network, box, Goals.margins(row[None], torch.tensor([limit]).double())), row, limit


def tree_of(root: Root, rounds: int, deadline: float = math.inf) -> Tree:
    return Tree(Narrowed.of(root, 0), Narrowing(rounds=rounds), Effort(), deadline, 1 << 30)


@pytest.mark.parametrize("rounds", [0, 1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_trees_refute_and_meet_goals(seed: int, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing but splits of nodes.
    monkeypatch.setattr(tree, "PARTS", 0)
    for slack, expected in ((0.05, "closed"), (-0.05, "counterexample")):
        network, root, row, limit = hard_goal(seed, slack)
        with torch.no_grad():
            found = tree_of(root, rounds).run(math.inf)
        assert found is not None
        assert found.ending == expected
        if found.counterexample is not None:
            assert float(network.logits(found.counterexample[None].double())[0] @ row) <= limit


def test_a_tree_goes_on_where_it_was_and_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "PARTS", 0)
    monkeypatch.setattr(tree, "NODES", 2)
    _, root, _, _ = hard_goal(1, 0.02)
    with torch.no_grad():
        whole = tree_of(root, 1)
        assert whole.run(math.inf) is not None
        bit_by_bit, turns = tree_of(root, 1), 0
        assert bit_by_bit.seconds_left is None, "nothing is known yet"
        assert bit_by_bit.run(-math.inf) is None, "a moment that has passed"
        monkeypatch.setattr(time, "perf_counter", iter(range(10**6)).__next__)
        while bit_by_bit.run(0.5 + 4 * turns) is None:
            turns += 1
    assert turns >= 2
    assert bit_by_bit.examined == whole.examined
    assert bit_by_bit.seconds_left == 0.0


def test_goals_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    monkeypatch.setattr(goalwise, "TURN_S", 1e9)
    asked: list[int] = []
    original = Search.run

    def noted(self: Search, pause: float = math.inf, most: float = math.inf, memory: int | None = None) -> object:
        asked.append(0 if memory is None else memory)
        return original(self, pause, most, memory)

    monkeypatch.setattr(Search, "run", noted)
    network, box = random_network(2, inputs=4), Box.linf(uniform(1, 4, seed=2), 0.5, None)
    x = box.lower + (box.upper - box.lower) * uniform(4000, 4, seed=2)
    spec = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]).double()
    goals = Goals.margins(spec, (network.logits(x) @ spec.T).amin(0) - 0.05)
    with torch.no_grad():
        found = Goalwise(root_of(network, box, goals), memory=1000, narrowing=Narrowing(rounds=0)).run()
    assert found.ending == "memory"
    assert asked == [0, 500, 1000], "the first goal is closed, then the second has what both had"


def test_without_rounds_boxes_are_left_as_they_are() -> None:
    root = above(diagonal(), SQUARE, [1.0], -1.0)
    with torch.no_grad():
        known = Narrowed.of(root, 0)
        assert Narrowing(rounds=0).narrow(known) is known
    with pytest.raises(ConfigError, match="narrowing must be a whole number of rounds >= 0, got -1"):
        Bab(narrowing=-1)


def test_a_bound_that_is_no_number_decides_nothing() -> None:
    root = above(diagonal(), SQUARE, [math.nan], -1.0)
    found = narrow(root)
    assert found is not None
    assert (found.decided == 0).all()


def _row(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def _loose(root: Root) -> dict[int, object]:
    """Pre-activation bounds that leave more open than there is."""
    from certtrain.activations import Interval

    (part,) = root.space.parts
    wide = torch.full((1, 2), 4.0, dtype=torch.float64)
    return {part.read: Interval(-wide, wide)}
