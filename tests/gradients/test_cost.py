"""What an evaluation takes, told from a few images, and what that rules out."""

import time
from collections.abc import Callable

import pytest
import torch

from certtrain.gradients import PGPE, RGS, Backprop, Choice
from certtrain.gradients import pgpe as pgpe_module
from certtrain.gradients.base import Cost
from certtrain.gradients.cost import cost_of_one
from certtrain.gradients.members import Members
from certtrain.gradients.strategy import affordable, against_vectorising

Params = dict[str, torch.Tensor]
CENTRE = {"x": torch.ones(1000)}  # 4 kB
KILOBYTES = 100


class Images:
    """Losses that take a time and 100 kB for each image, and note how many images they were asked for."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked: list[int] = []

    def __call__(self, images: int) -> Callable[[Params], torch.Tensor]:
        def loss(params: Params) -> torch.Tensor:
            self.asked.append(images)
            time.sleep(images * self.seconds)
            held = [torch.zeros(250 * KILOBYTES) for _ in range(images)]
            return params["x"].sum() + sum(part[0] for part in held)

        return loss


@pytest.mark.parametrize("estimator", [PGPE(0.1, 4), Backprop(), RGS(0.1, 4)], ids=lambda e: type(e).__name__)
def test_memory_is_extrapolated_from_two_images(estimator) -> None:
    cost = cost_of_one(estimator, Images(), CENTRE, 500)
    assert cost.bytes == pytest.approx(500 * KILOBYTES * 1000, rel=0.01)


def test_a_long_evaluation_is_made_on_two_images_and_a_short_one_on_more() -> None:
    slow = Images(seconds=0.15)
    cost = cost_of_one(PGPE(0.1, 4), slow, CENTRE, 1000)
    assert slow.asked == [1, 2]
    assert cost.seconds >= 150
    quick = Images()
    cost_of_one(PGPE(0.1, 4), quick, CENTRE, 8)
    assert quick.asked == [1, 2, 2, 4, 8]
    known = Images()
    cost_of_one(PGPE(0.1, 4), known, CENTRE, 8, short=1e9)
    assert known.asked == [1, 2, 2], "short enough by the first estimate"
    single = Images()
    cost_of_one(PGPE(0.1, 4), single, CENTRE, 1)
    assert set(single.asked) == {1}


def test_derivatives_are_part_of_an_evaluation_where_they_are_needed() -> None:
    seen = []

    def loss_of(images: int) -> Callable[[Params], torch.Tensor]:
        return lambda params: seen.append(params["x"].requires_grad) or params["x"].sum()

    cost_of_one(Backprop(), loss_of, CENTRE, 2)
    assert set(seen) == {True}
    seen.clear()
    cost_of_one(PGPE(0.1, 4), loss_of, CENTRE, 2)
    assert set(seen) == {False}


def test_tensors_that_cannot_be_watched_leave_memory_open() -> None:
    def loss_of(images: int) -> Callable[[Params], torch.Tensor]:
        def loss(params: Params) -> torch.Tensor:
            if torch.utils._python_dispatch._len_torch_dispatch_stack():
                raise RuntimeError("the raw Tensor object is already associated to a python object")
            return params["x"].sum()

        return loss

    cost = cost_of_one(PGPE(0.1, 4), loss_of, CENTRE, 2)
    assert cost.bytes is None
    assert against_vectorising(cost, 64, free=1) is None


def test_what_rules_a_vectorised_call_out() -> None:
    assert against_vectorising(Cost(0.01, 10**6), 64, free=10**9) is None
    assert against_vectorising(Cost(0.01, 10**9), 64, free=None) is None
    assert against_vectorising(Cost(70.0, 10**6), 64, free=10**9) == "beside the 70 s of one member, calls take no time"
    reason = against_vectorising(Cost(0.01, 10**8), 64, free=10**9)
    assert reason == "64 members take about 6.4 GB, 1.0 GB are free: see pgpe.member_chunk"


def test_auto_never_times_what_the_cost_rules_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgpe_module, "available_bytes", lambda device: 10**9)

    def never(params: Params) -> torch.Tensor:
        raise AssertionError("evaluated")

    open_ = PGPE(0.1, 64, strategy="auto")
    for cost in (Cost(70.0, 10**3), Cost(0.001, 10**8)):
        choice = open_.choose(never, CENTRE, cost)
        assert isinstance(choice, Choice)
        assert choice.strategy == "loop"
        assert choice.seconds == {"loop": cost.seconds}
        assert "vmap was not tried: " in str(choice)


def test_a_measurement_takes_seconds_however_long_a_member_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [affordable(Cost(s, None), 64) for s in (0.0, 1e-3, 0.1, 0.9)] == [64, 64, 10, 2]
    assert affordable(Cost(0.9, None), 1) == 1
    measured_on = []

    def fastest(loss: object, members: Members, chunk: int) -> Choice:
        measured_on.append((len(members), chunk))
        return Choice("loop", {"loop": 1.0}, {})

    monkeypatch.setattr(pgpe_module, "fastest", fastest)
    PGPE(0.1, 64, strategy="auto").choose(lambda p: p["x"].sum(), CENTRE, Cost(0.1, 10))
    PGPE(0.1, 64, strategy="auto").choose(lambda p: p["x"].sum(), CENTRE, Cost(0.001, 10))
    PGPE(0.1, 64, strategy="auto", member_chunk=7).choose(lambda p: p["x"].sum(), CENTRE)
    assert measured_on == [(10, 10), (64, 64), (8, 7)]


def test_what_a_loss_prepares_is_not_charged_to_its_members() -> None:
    def loss_of(images: int) -> Callable[[Params], torch.Tensor]:
        time.sleep(0.2)  # an attack, once per generation
        return lambda params: params["x"].sum()

    assert cost_of_one(PGPE(0.1, 4), loss_of, CENTRE, 2).seconds < 0.1
