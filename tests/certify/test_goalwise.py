"""Goals that are searched one by one, and trees of boxes that are narrowed again after each split."""

import math
import time

import pytest
import torch
from certify.search_cases import SQUARE, above, diagonal, hard_goal, memory_given, random_network, root_of, uniform
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds import Box
from certtrain.certify.arithmetic import Arithmetic, arithmetic_named
from certtrain.certify.search import goalwise, tree
from certtrain.certify.search.enveloping import Enveloping
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
from certtrain.testing import compare_with_oracle, oracle_question

PLENTY = 1 << 30
# Dense, convolutional and residual networks.
SEEDS = range(8)
NONE = Enveloping(steps=0)


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
    found = Goalwise(root, enveloping=NONE).run()
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


def tree_of(root: Root, rounds: int, deadline: float = math.inf) -> Tree:
    return Tree(Narrowed.of(root, 0), Narrowing(rounds=rounds), Effort(), deadline, PLENTY)


@pytest.mark.parametrize("rounds", [0, 1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_trees_refute_and_meet_goals(seed: int, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing but splits of nodes.
    monkeypatch.setattr(tree, "PARTS", 0)
    for slack, expected in ((0.05, "closed"), (-0.05, "counterexample")):
        network, root, row, limit = hard_goal(seed, slack)
        with torch.no_grad():
            found = tree_of(root, rounds).run(math.inf, PLENTY)
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
        assert whole.run(math.inf, PLENTY) is not None
        bit_by_bit, turns = tree_of(root, 1), 0
        assert bit_by_bit.seconds_left is None, "nothing is known yet"
        assert bit_by_bit.run(-math.inf, PLENTY) is None, "a moment that has passed"
        monkeypatch.setattr(time, "perf_counter", iter(range(10**6)).__next__)
        while bit_by_bit.run(0.5 + 4 * turns, PLENTY) is None:
            turns += 1
    assert turns >= 2
    assert bit_by_bit.examined == whole.examined
    assert bit_by_bit.seconds_left == 0.0


def test_a_tree_forgets_what_rows_chose_at_nodes_that_are_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "PARTS", 0)
    _, root, _, _ = hard_goal(5, 0.02)
    with torch.no_grad():
        for kept, expected in ((0, [False, True, True]), (PLENTY, [True] * 3)):
            grown = tree_of(root, 1)
            monkeypatch.setattr(time, "perf_counter", iter(range(10**6)).__next__)
            # Two nodes: each asks for the time four times, its search among it.
            assert grown.run(4.5, kept) is None
            assert [box.nbytes > 0 for box, _ in grown._open] == expected, "the next one's are kept in any case"
            monkeypatch.undo()
            monkeypatch.setattr(tree, "PARTS", 0)
            found = grown.run(math.inf, kept)
            assert found is not None
            assert found.ending == "closed"


def test_goals_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    monkeypatch.setattr(goalwise, "TURN_S", 1e9)
    asked = memory_given(monkeypatch)
    network, box = random_network(2, inputs=4), Box.linf(uniform(1, 4, seed=2), 0.5, None)
    x = box.lower + (box.upper - box.lower) * uniform(4000, 4, seed=2)
    spec = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]]).double()
    root = root_of(network, box, Goals.margins(spec, (network.logits(x) @ spec.T).amin(0) - 0.05))
    for memory, ending, expected in ((850, "closed", [0, 425, 850]), (300, "memory", [0, 150, 150])):
        asked.clear()
        with torch.no_grad():
            found = Goalwise(root, memory=memory, narrowing=Narrowing(rounds=0), enveloping=NONE).run()
        assert found.ending == ending
        assert asked == expected, "once the first goal is closed, the second has what both had"


def test_a_search_has_all_of_the_memory_once_there_is_no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    together, given = Search.run, list[tuple[str, int]]()

    def full(
        self: Search, pause: float = math.inf, most: float = math.inf, memory: int | None = None
    ) -> Outcome | None:
        if memory is None:
            return together(self, pause, most)
        given.append(("search", memory))
        return Outcome("memory", -1.0, None, 0)

    def hopeless(self: Tree, pause: float, kept: int) -> Outcome:
        given.append(("tree", kept))
        return Outcome("exhausted", -1.0, None, 0)

    monkeypatch.setattr(Search, "run", full)
    monkeypatch.setattr(Tree, "run", hopeless)
    _, root, _, _ = hard_goal(1, 0.02)
    with torch.no_grad():
        found = Goalwise(root, memory=1000, narrowing=Narrowing(rounds=1), enveloping=NONE).run()
    assert found.ending == "memory"
    assert given == [("search", 500), ("tree", 500), ("search", 1000)]


def _row(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def _loose(root: Root) -> dict[int, Interval]:
    """Pre-activation bounds that leave more open than there is."""
    (part,) = root.space.parts
    wide = torch.full((1, 2), 4.0, dtype=torch.float64)
    return {part.read: Interval(-wide, wide)}
