"""Which way a population is evaluated: the faster one that works, found out once."""

import time

import pytest
import torch

from certtrain.errors import ConfigError, one_line
from certtrain.gradients import PGPE, Backprop, Choice, evaluate, fastest
from certtrain.gradients.members import Drawn
from certtrain.gradients.strategy import LOOPED
from certtrain.networks.kernels import is_transformed

Params = dict[str, torch.Tensor]
CENTRE = {"x": torch.linspace(-1, 1, 5, dtype=torch.float64)}
NOISE = {"x": torch.linspace(-0.1, 0.1, 60, dtype=torch.float64).reshape(12, 5)}
CHUNK = 8


class Loss:
    """A sum of squares that can be made slow, and made to fail, in either way; counts its calls."""

    def __init__(self, slow: str = "", **errors: Exception) -> None:
        self.slow, self.errors = slow, errors
        self.calls = {"vmap": 0, "loop": 0}

    def __call__(self, params: Params) -> torch.Tensor:
        way = "vmap" if is_transformed(params["x"]) else "loop"
        self.calls[way] += 1
        if way in self.errors:
            raise self.errors[way]
        if way == self.slow:
            time.sleep(0.02)
        return params["x"].square().sum()


def test_the_faster_way_is_chosen_and_both_times_are_told() -> None:
    for slow, expected in (("loop", "vmap"), ("vmap", "loop")):
        choice = fastest(Loss(slow), Drawn(CENTRE, NOISE), CHUNK)
        assert choice.strategy == expected
        assert choice.refused == {}
        assert set(choice.seconds) == {"vmap", "loop"}
        assert choice.seconds[expected] < choice.seconds[slow]
        assert f"auto: {expected} (" in str(choice)


def test_a_clear_lead_ends_the_measurement_and_no_more_than_a_chunk_is_evaluated() -> None:
    loss = Loss(slow="loop")
    fastest(loss, Drawn(CENTRE, NOISE), CHUNK)
    assert loss.calls == {"vmap": 2, "loop": 2 * CHUNK}


def test_a_loop_is_timed_on_a_few_members_and_a_vectorised_call_on_its_whole_chunk() -> None:
    drawn, seen = Drawn({"x": torch.zeros(5)}, {"x": torch.zeros(100, 5)}), []

    def loss(params: Params) -> torch.Tensor:
        if is_transformed(params["x"]):
            seen.append(torch._C._functorch.get_unwrapped(params["x"]).shape[0])
            return params["x"].sum()
        time.sleep(0.002)
        looped.append(1)
        return params["x"].sum()

    looped: list[int] = []
    assert fastest(loss, drawn, 64).strategy == "vmap"
    assert set(seen) == {64}
    assert len(looped) == 2 * LOOPED


REFUSALS = [
    ConfigError("set relaxation.backend=native"),
    RuntimeError("vmap: no batching rule\nand a second line"),
    torch.OutOfMemoryError("out of memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda e: type(e).__name__)
def test_a_way_that_fails_is_not_taken_and_the_reason_is_kept(error: Exception) -> None:
    loss = Loss(vmap=error)
    choice = fastest(loss, Drawn(CENTRE, NOISE), CHUNK)
    assert choice.strategy == "loop"
    assert list(choice.seconds) == ["loop"]
    reason = one_line(error)
    assert choice.refused == {"vmap": reason}
    assert f"vmap is not possible: {reason}" in str(choice)
    assert "\n" not in str(choice)
    assert loss.calls["vmap"] == 1, "what fails once is not tried again"
    assert fastest(Loss(loop=error), Drawn(CENTRE, NOISE), CHUNK).strategy == "vmap"


def test_a_loss_that_branches_on_its_value_is_evaluated_in_a_loop() -> None:
    """Really refused by vmap, not by a stand-in."""

    def branches(p: Params) -> torch.Tensor:
        return p["x"].sum() if p["x"].sum() > 0 else p["x"].sum() * 0

    expected = torch.stack([branches({"x": CENTRE["x"] + n}) for n in NOISE["x"]])
    torch.testing.assert_close(evaluate(branches, Drawn(CENTRE, NOISE), strategy="auto"), expected)


def test_a_way_that_fails_later_is_not_taken_for_its_earlier_time() -> None:
    class FailsLater(Loss):
        def __call__(self, params: Params) -> torch.Tensor:
            if self.calls["vmap"] == 1 and is_transformed(params["x"]):
                raise torch.OutOfMemoryError("fragmented")
            return super().__call__(params)

    choice = fastest(FailsLater(slow="loop"), Drawn(CENTRE, NOISE), CHUNK)
    assert choice.strategy == "loop"
    assert list(choice.seconds) == ["loop"]
    assert choice.refused == {"vmap": "OutOfMemoryError: fragmented"}


def test_where_neither_works_the_error_is_the_loops() -> None:
    with pytest.raises(ConfigError, match="the loss is wrong"):
        fastest(Loss(vmap=RuntimeError("no rule"), loop=ConfigError("the loss is wrong")), Drawn(CENTRE, NOISE), CHUNK)


@pytest.mark.parametrize("slow", ["vmap", "loop"])
def test_auto_evaluates_like_the_others(slow: str) -> None:
    found = evaluate(Loss(slow), Drawn(CENTRE, NOISE), strategy="auto", chunk=CHUNK)
    torch.testing.assert_close(found, (CENTRE["x"] + NOISE["x"]).square().sum(1))


def test_an_estimator_chooses_only_what_is_left_open() -> None:
    loss = Loss(slow="vmap")
    open_ = PGPE(0.1, 20, strategy="auto", member_chunk=CHUNK)
    choice = open_.choose(loss, CENTRE)
    assert isinstance(choice, Choice)
    assert loss.calls["loop"] == 2 * CHUNK, "as many members as one vectorised call has"
    settled = open_.decided(choice.strategy)
    assert settled == PGPE(0.1, 20, strategy="loop", member_chunk=CHUNK)
    named = PGPE(0.1, 20, strategy="vmap")
    before = dict(loss.calls)
    for estimator in (settled, named, Backprop()):
        assert estimator.choose(loss, CENTRE) is None
        assert estimator.decided("loop") is estimator
    assert loss.calls == before, "nothing is evaluated where nothing is open"


def test_a_small_population_is_timed_as_it_is() -> None:
    loss = Loss(slow="vmap")
    PGPE(0.1, 4, strategy="auto", member_chunk=CHUNK).choose(loss, CENTRE)
    assert loss.calls["loop"] == 2 * 4


def test_an_estimate_of_an_open_estimator_is_the_same() -> None:
    found = PGPE(0.1, 20, seed=3, strategy="auto").estimate(Loss(), CENTRE, 5)
    expected = PGPE(0.1, 20, seed=3, strategy="loop").estimate(Loss(), CENTRE, 5)
    torch.testing.assert_close(found.gradient, expected.gradient)
    torch.testing.assert_close(found.loss, expected.loss)
