"""Goals bounded with envelopes, in a search and before it."""

import gc
import math
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from certify.search_cases import hard_goal, memory_given, random_network, root_of, uniform
from torch import Tensor, nn

from benchmarks.memory import forget_peak, peak_bytes
from certtrain.bounds import Box
from certtrain.certify.milp import exact_minimum
from certtrain.certify.network import Network
from certtrain.certify.search import enveloping, goalwise
from certtrain.certify.search.enveloping import Enveloped, Enveloping
from certtrain.certify.search.goalwise import Goalwise
from certtrain.certify.search.narrowing import Narrowed, Narrowing
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.root import Root
from certtrain.certify.search.search import BARELY, Outcome, Search
from certtrain.certify.verifiers.bab import Bab
from certtrain.deadline import OutOfTime, until
from certtrain.errors import ConfigError
from certtrain.testing import compare_with_oracle, oracle_question

# Dense, convolutional and residual networks.
SEEDS = range(8)


def fitted(root: Root, known: float = -math.inf, steps: int = 300) -> Enveloped | None:
    with torch.no_grad():
        return Enveloping(steps=steps).fit(root, 0, known)


def test_answers_are_those_of_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether envelopes close a goal, or only begin a search, that nothing is narrowed for."""
    met: list[Enveloped | None] = []
    original = Enveloping.fit

    def counted(self: Enveloping, *asked: Any) -> Enveloped | None:
        met.append(original(self, *asked))
        return met[-1]

    monkeypatch.setattr(Enveloping, "fit", counted)
    # Whatever they are worth.
    monkeypatch.setattr(enveloping, "LEFT", 100.0)
    monkeypatch.setattr(goalwise, "FIRST", 0)
    found = compare_with_oracle(Bab(splitting="neurons", narrowing=0), SEEDS, 60.0)
    assert not found.left_open
    assert found.verified == tuple(seed for seed in SEEDS if oracle_question(seed).minimum > 0)
    assert sum(one is not None and one.margin > 0 for one in met) >= 2, "they close goals"
    assert sum(one is not None and not one.margin > 0 for one in met) >= 2, "and begin searches"


@pytest.mark.parametrize("seed", range(8))
def test_what_is_proved_is_no_more_than_the_minimum(seed: int) -> None:
    network, box = random_network(seed, inputs=4), Box.linf(uniform(1, 4, seed=seed), 0.5, None)
    row = torch.tensor([[1.0, -1.0, 0.0]]).double()
    exact = float(exact_minimum(network.graph, network.values[torch.float64], box, row[None]).upper)
    plain = root_of(network, box, Goals.margins(row))
    without = float(plain.proved(plain.decided, torch.zeros(1).long(), plain.first_choice(1)))
    found = fitted(plain)
    assert found is not None
    lower = float(found.root.proved(plain.decided, torch.zeros(1).long(), found.choice))
    assert without < lower <= exact + 1e-9
    # A limit far below is refuted, by as much as it is.
    easy = fitted(root_of(network, box, Goals.margins(row, torch.tensor([without]).double())))
    assert easy is not None
    assert 0 < easy.margin <= exact - without + 1e-9


def test_a_refuted_goal_has_a_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was narrowed for it: the bound is one of the whole box, not a sign alone."""
    monkeypatch.setattr(goalwise, "FIRST", 0)
    _, root, _, _ = hard_goal(1, 1.0)
    with torch.no_grad():
        found = Goalwise(root, enveloping=Enveloping(steps=300)).run()
    assert found.ending == "closed"
    assert BARELY < found.lower <= 1.0 + 1e-9


def test_of_what_is_refuted_on_a_narrowed_box_no_margin_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    _, root, _, _ = hard_goal(2, 0.02)
    original, asked = Enveloping.fit, list[Root]()

    def proved_where_narrowed(self: Enveloping, on: Root, goal: int, *_: float) -> Enveloped | None:
        asked.append(on)
        found = original(self, on, goal, -10.0)
        assert found is not None
        return found if on is root else replace(found, margin=0.5)

    def halved(self: Narrowing, known: Narrowed) -> Narrowed:
        return known.halves(int(root.free[0].nonzero()[0]))[0]

    monkeypatch.setattr(Enveloping, "fit", proved_where_narrowed)
    monkeypatch.setattr(Narrowing, "narrow", halved)
    with torch.no_grad():
        found = Goalwise(root).run()
    assert len(asked) == 2
    assert asked[1] is not root
    assert found.ending == "closed"
    assert found.lower == BARELY


def test_a_search_begins_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    parts = []
    for steps in (0, 300):
        found = [_answered(seed, steps) for seed in range(6)]
        assert {one.ending for one in found} == {"closed"}
        parts.append(sum(one.examined for one in found))
    assert parts[1] < 0.7 * parts[0]


def _answered(seed: int, steps: int) -> Outcome:
    _, root, _, _ = hard_goal(seed, 0.02)
    with torch.no_grad():
        return Goalwise(root, narrowing=Narrowing(rounds=0), enveloping=Enveloping(steps=steps)).run()


def test_they_are_given_up_where_they_do_not_reach_what_is_known() -> None:
    _, root, _, _ = hard_goal(2, 0.02)
    assert fitted(root, -math.inf, steps=0) is None
    assert fitted(root, known=-1e-9) is None
    found = fitted(root, known=-10.0)
    assert found is not None
    assert found.margin == -math.inf, "it is open"
    with torch.no_grad():
        again = found.on(root.narrowed(root.bounds))
    assert again.margin == -math.inf
    torch.testing.assert_close(
        *(one.root.proved(root.decided, torch.zeros(1).long(), one.choice) for one in (again, found))
    )


def test_they_are_left_alone_where_memory_is_short() -> None:
    """And nothing of what they need is made: neither then, nor where nobody asks."""
    _, root, _, _ = hard_goal(2, 0.02)
    needed = enveloping.FITTED * root.weight_count
    assert Enveloping().fit(root, 0, -10.0, needed - 1) is None
    assert Enveloping().shared(root, needed - 1) == 0
    assert Enveloping(steps=0).shared(root, needed) == 0
    assert root.envelopable is not None
    assert "neurons" not in vars(root.envelopable)
    with torch.no_grad():
        found = Enveloping().fit(root, 0, -10.0, needed)
    assert found is not None
    made = [x for one in root.neurons for x in vars(one).values() if isinstance(x, Tensor)]
    assert 0 < sum(x.nbytes for x in made) <= 1.2 * Enveloping().shared(root, needed)
    roots = found.root.single, found.root.double
    forms = [x for own in roots for one in own.region.envelopes.values() for x in one.forms.values()]
    assert 0 < sum(x.nbytes for x in forms) <= found.nbytes
    narrowed = root.narrowed(root.bounds)
    assert narrowed.neurons is root.neurons, "they are of the whole box"


@pytest.mark.parametrize("share", [1 / 4, 0.0])
def test_goals_that_have_no_room_for_them_are_searched_without(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    monkeypatch.setattr(goalwise, "ENVELOPES", share)
    # Whatever they are worth.
    monkeypatch.setattr(enveloping, "LEFT", 100.0)
    _, root, _, _ = hard_goal(2, 0.02)
    searched: list[Root] = []

    def search(on: Root, *rest: Any) -> Search:
        searched.append(on)
        return Search(on, *rest)

    monkeypatch.setattr(goalwise, "Search", search)
    with torch.no_grad():
        found = Goalwise(root, narrowing=Narrowing(rounds=0)).run()
    assert found.ending == "closed"
    _, begun = searched
    assert bool(begun.single.region.envelopes) == (share > 0)


def test_what_goals_share_and_keep_is_none_of_a_searchs_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goalwise, "FIRST", 0)
    monkeypatch.setattr(enveloping, "LEFT", 100.0)
    asked = memory_given(monkeypatch)
    _, root, _, _ = hard_goal(2, 0.02)
    for memory in (1 << 20, 1 << 30):
        asked.clear()
        with torch.no_grad():
            Goalwise(root, memory=memory, narrowing=Narrowing(rounds=0)).run()
        counted = enveloping.SHARED + enveloping.KEPT
        assert asked[1:] == [memory - counted * root.weight_count] * (len(asked) - 1)
        assert len(asked) > 1


def test_nothing_is_kept_of_goals_that_were_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not until somebody collects: what has begun refers to itself."""
    _, root, _, _ = hard_goal(2, 0.02)
    searches: list[weakref.ref[Search]] = []

    def search(*given: Any) -> Search:
        made = Search(*given)
        searches.append(weakref.ref(made))
        return made

    def begun(goals: Sequence[goalwise._Goal], memory: int) -> None:
        for goal in goals:
            while goal._search is None:
                goal.go_on(1e-3, memory)

    monkeypatch.setattr(goalwise, "Search", search)
    monkeypatch.setattr(goalwise, "FIRST", 0)
    monkeypatch.setattr(goalwise, "_take_turns", begun)
    gc.disable()
    try:
        with torch.no_grad():
            found = Goalwise(root, narrowing=Narrowing(rounds=0), enveloping=Enveloping(steps=0)).run()
        assert [one() for one in searches] == [None, None]
    finally:
        gc.enable()
    assert found.ending == "time"


def test_no_stage_of_a_goal_begins_after_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait: what comes after fitting, comes in the goal's next turn."""
    _, root, _, _ = hard_goal(2, 0.02)
    stages: list[str] = []
    narrow, now, late = Narrowing.narrow, time.perf_counter, [0.0]

    def slow(self: Enveloping, *_: object) -> None:
        stages.append("fit")
        late[0] = 100.0

    def narrowed(self: Narrowing, known: Narrowed) -> Narrowed | None:
        stages.append("narrow")
        return narrow(self, known)

    monkeypatch.setattr(goalwise, "time", SimpleNamespace(perf_counter=lambda: now() + late[0]))
    monkeypatch.setattr(Enveloping, "fit", slow)
    monkeypatch.setattr(Narrowing, "narrow", narrowed)
    goal = goalwise._Goal(Goalwise(root), 0, -1.0)
    with torch.no_grad():
        goal.go_on(60.0, 1 << 30)
        assert (goal.found, stages) == (None, ["fit"])
        goal.go_on(60.0, 1 << 30)
    assert goal.ending == "closed"
    assert stages[:2] == ["fit", "narrow"]


def test_roots_keep_what_they_were() -> None:
    _, root, _, _ = hard_goal(1, 0.02)
    before = _bound(root)
    found = fitted(root)
    assert found is not None
    torch.testing.assert_close(_bound(root), before)
    assert found.root.single.region.envelopes
    assert not root.single.region.envelopes
    # What is narrowed has lines again, between the same bounds.
    torch.testing.assert_close(_bound(found.root.narrowed(root.bounds)), before)


def _bound(root: Root) -> Tensor:
    return root.proved(root.decided, torch.zeros(1).long(), root.first_choice(1))


def test_a_search_with_them_meets_counterexamples() -> None:
    network, root, row, limit = hard_goal(3, -0.05)
    found = fitted(root)
    assert found is not None
    with torch.no_grad():
        met = Search(found.root, start=found.choice).run()
    assert met is not None
    assert met.ending == "counterexample"
    assert met.counterexample is not None
    assert float(network.logits(met.counterexample[None].double())[0] @ row) <= limit


def test_a_fit_takes_no_more_memory_than_is_counted() -> None:
    """What goals share then is made by the first fit, and counts in what it takes."""
    sizes = (512, 768, 768)
    hidden = [layer for sides in pairwise(sizes) for layer in (nn.Linear(*sides), nn.ReLU())]
    network = Network.traced(nn.Sequential(*hidden, nn.Linear(sizes[-1], 3)).requires_grad_(False), sizes[:1])
    box = Box.linf(uniform(1, sizes[0], seed=0), 0.01, None)
    root = root_of(network, box, Goals.margins(torch.tensor([[1.0, -1.0, 0.0]]).double()))
    if not forget_peak():
        pytest.skip("this system does not forget what the peak was")
    before = peak_bytes()
    found = fitted(root, steps=10)
    taken = (peak_bytes() - before) / root.weight_count
    assert found is not None
    assert enveloping.SHARED + enveloping.KEPT <= taken <= enveloping.FITTED


def test_time_is_kept() -> None:
    _, root, _, _ = hard_goal(1, 0.02)
    with until(time.perf_counter() - 1), pytest.raises(OutOfTime), torch.no_grad():
        Enveloping().fit(root, 0, -math.inf)


@pytest.mark.parametrize("steps", [-1, True])
def test_impossible_steps_are_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match="envelopes must be a whole number of steps >= 0, got"):
        Bab(envelopes=steps)
