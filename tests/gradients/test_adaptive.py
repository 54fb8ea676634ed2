"""How many gradients a control variate takes follows from what was measured, and only from that."""

import math

import pytest
import torch

from certtrain.gradients import PGPE
from certtrain.gradients.adaptive import FEWEST, GRADIENT_COST, MOST, AdaptiveGradient
from certtrain.gradients.base import LossFunction, State
from certtrain.gradients.control_variate import Found
from certtrain.networks.graph import Params

CONTROL = AdaptiveGradient()
PAIRS = 32


def settled(variance: float, missed: float, square: float = 1.0, generations: int = 400) -> int:
    """Samples after so many generations in which the same was found: V of a sample, B and |E h|²."""
    state = CONTROL.initial_state()
    for _ in range(generations):
        samples = CONTROL.gradients(state)
        noise = variance / samples
        state = CONTROL.updated(state, Found(square + noise, noise, missed + noise, PAIRS))
    return CONTROL.gradients(state)


@pytest.mark.parametrize("variance", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("missed", [0.1, 1.0])
def test_they_make_the_error_per_time_smallest(variance: float, missed: float) -> None:
    def effort(samples: int) -> float:
        return (missed + variance / samples) * (2 * PAIRS + GRADIENT_COST * samples)

    choices = [2**k for k in range(2, 7)]
    assert effort(settled(variance, missed)) <= 1.02 * min(map(effort, choices))


def test_few_where_gradients_agree_and_many_where_they_do_not() -> None:
    assert settled(0.0, 1.0) == FEWEST
    assert settled(1e6, 1.0) == MOST
    assert settled(1.0, -5.0, square=1.0) == settled(1.0, 0.05, square=1.0), "noise below zero is no negative bias"
    assert settled(1.0, -5.0, square=-1.0) == MOST


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_what_is_not_finite_tells_nothing(odd: float) -> None:
    state = CONTROL.updated(CONTROL.initial_state(), Found(1.0, 0.1, 0.5, PAIRS))
    for found in (Found(odd, 0.1, 0.5, PAIRS), Found(1.0, odd, 0.5, PAIRS), Found(1.0, 0.1, odd, PAIRS), None):
        assert CONTROL.updated(state, found) == state


def bowl(params: Params) -> torch.Tensor:
    return (params["w"] ** 4).sum()


def run(loss: LossFunction, generations: range, state: State) -> tuple[list[torch.Tensor], State]:
    made = PGPE(0.3, 8, control_variate=CONTROL)
    params = {"w": torch.linspace(-1, 1, 6, dtype=torch.float64)}
    found = []
    for generation in generations:
        estimate = made.estimate(loss, params, generation, state)
        found.append(estimate.gradient["w"])
        state = estimate.state
    return found, state


def test_a_run_goes_on_from_its_state() -> None:
    whole, _ = run(bowl, range(6), {})
    first, state = run(bowl, range(3), {})
    rest, _ = run(bowl, range(3, 6), {name: value.clone() for name, value in state.items()})
    for one, other in zip(whole, first + rest, strict=True):
        assert torch.equal(one, other)


def test_the_number_is_recorded() -> None:
    made = PGPE(0.3, 8, control_variate=CONTROL)
    told = made.estimate(bowl, {"w": torch.ones(6, dtype=torch.float64)}, 0).statistics
    assert told["control_variate/gradients"] == FEWEST
