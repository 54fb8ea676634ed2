"""ClipUp: its steps by hand, at a gradient of zero, through its state_dict, with the configuration."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from certtrain.errors import ConfigError
from certtrain.training.clipup import ClipUp


def two(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([v], dtype=torch.float64)) for v in values]


def step(optimizer: ClipUp, params: list[nn.Parameter], *gradient: float) -> list[float]:
    for p, g in zip(params, gradient, strict=True):
        p.grad = torch.full_like(p, g)
    optimizer.step()
    return [p.item() for p in params]


def test_steps_by_hand() -> None:
    """|(30, 40)| = 50 over both parameters: a push of lr along (0.6, 0.8), whatever the length of the gradient."""
    params = two(0.0, 0.0)
    optimizer = ClipUp(params, lr=0.1, momentum=0.9, max_speed=1.0)
    assert step(optimizer, params, 30.0, 40.0) == pytest.approx([-0.06, -0.08])
    assert step(optimizer, params, 3e-9, 4e-9) == pytest.approx([-0.06 - 0.114, -0.08 - 0.152])


def test_the_velocity_is_cut_to_the_largest_speed() -> None:
    params = two(0.0)
    optimizer = ClipUp(params, lr=0.1, momentum=0.9, max_speed=0.15)
    found = [0.0] + [step(optimizer, params, 1.0)[0] for _ in range(5)]
    assert [a - b for a, b in pairwise(found)] == pytest.approx([0.1, 0.15, 0.15, 0.15, 0.15])


def test_without_a_largest_speed_it_is_twice_the_rate_that_a_scheduler_sets() -> None:
    params = two(0.0)
    optimizer = ClipUp(params, lr=0.1)
    for _ in range(20):
        step(optimizer, params, 1.0)
    optimizer.param_groups[0]["lr"] = 0.01
    before = params[0].item()
    assert before - step(optimizer, params, 1.0)[0] == pytest.approx(0.02)


def test_a_gradient_of_zero_is_no_direction() -> None:
    params = two(1.0, 2.0)
    optimizer = ClipUp(params, lr=0.1, max_speed=1.0)
    assert step(optimizer, params, 0.0, 0.0) == [1.0, 2.0]
    step(optimizer, params, 1.0, 0.0)
    moved = step(optimizer, params, 0.0, 0.0)
    assert moved == pytest.approx([1.0 - 0.1 - 0.09, 2.0])
    assert all(math.isfinite(value) for value in moved)


def test_its_state_continues_where_it_was() -> None:
    params = two(0.0, 1.0)
    optimizer = ClipUp(params, lr=0.1)
    step(optimizer, params, 1.0, 2.0)
    others = two(*(p.item() for p in params))
    other = ClipUp(others, lr=0.5)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert step(other, others, -1.0, 0.5) == step(optimizer, params, -1.0, 0.5)


def test_parameters_without_a_gradient_keep_still() -> None:
    params = two(1.0, 2.0)
    optimizer = ClipUp(params, lr=0.1)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert params[1].item() == 2.0
    assert optimizer.step(lambda: 3.5) == 3.5


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"lr": 0.1, "momentum": -0.1}, {"lr": 0.1, "max_speed": 0.0}])
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\."):
        ClipUp(two(0.0), **options)
