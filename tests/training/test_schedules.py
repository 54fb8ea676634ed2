"""Values over epochs, and the learning rate of a whole run."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR

from certtrain.errors import ConfigError
from certtrain.training.schedules import Ramp, cyclic, multistep, short_of, with_horizon


@pytest.mark.parametrize(("epoch", "value"), [(0, 0.0), (1.9, 0.0), (2, 0.0), (4.5, 0.25), (7, 0.5), (100, 0.5)])
def test_ramp(epoch: float, value: float) -> None:
    assert Ramp(0.0, 0.5, warmup=2, ramp=5)(epoch) == pytest.approx(value)


def test_a_ramp_of_length_zero_jumps() -> None:
    ramp = Ramp(1.0, 0.0, warmup=3, ramp=0)
    assert [ramp(e) for e in (0, 2.99, 3.0, 4)] == [1.0, 1.0, 0.0, 0.0]
    assert Ramp(0.0, 0.1)(0) == 0.1


def rates(factory, steps: int) -> list[float]:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = with_horizon(factory, optimizer, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_a_horizon_of_null_is_the_length_of_the_run() -> None:
    found = rates(partial(CosineAnnealingLR, T_max=None), 10)
    assert found[0] == 1.0
    assert found[5] == pytest.approx(0.5)
    assert found[9] < 0.03


def test_a_horizon_that_is_given_stays() -> None:
    assert rates(partial(CosineAnnealingLR, T_max=5), 6)[5] == pytest.approx(0.0)
    assert rates(partial(ConstantLR, factor=1.0, total_iters=0), 3) == [1.0, 1.0, 1.0]


def test_milestones_are_fractions_of_the_run() -> None:
    found = rates(partial(multistep, milestones=[0.5, 0.8], gamma=0.1, total_steps=None), 10)
    assert found == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_a_smooth_ramp_is_flat_at_first_and_has_no_corner() -> None:
    ramp = Ramp(0.0, 1.0, warmup=1, ramp=8, shape="smooth")
    values = [ramp(1 + 8 * share / 1000) for share in range(1001)]
    assert values[0] == 0
    assert values[-1] == 1
    assert values[50] < 0.001
    slopes = [b - a for a, b in pairwise(values)]
    assert all(b >= a - 1e-12 for a, b in pairwise(slopes)), "steeper and steeper, then a line"
    assert max(abs(b - a) for a, b in pairwise(slopes)) < 2e-5
    assert ramp.progress(5) == ramp(5)


def test_a_constant_has_neither_warm_up_nor_ramp() -> None:
    assert Ramp(0.0, 0.3, shape="constant")(0) == 0.3
    with pytest.raises(ConfigError, match=r"schedule\.eps\.shape=constant .* set schedule\.eps\.warmup=0"):
        Ramp(0.0, 0.3, warmup=1, shape="constant")


def test_cycles_rise_and_fall() -> None:
    found = rates(partial(cyclic, cycles=2, floor=0.1, total_steps=None), 20)
    assert found[0] == found[10] == pytest.approx(0.1)
    assert found[5] == found[15] == pytest.approx(1.0)
    for wrong in ({"cycles": 0, "floor": 0.1}, {"cycles": 1, "floor": 0.0}):
        with pytest.raises(ConfigError, match="scheduler"):
            rates(partial(cyclic, **wrong, total_steps=None), 2)


def test_a_radius_that_no_step_was_trained_on_is_said() -> None:
    jumps = Ramp(0.0, 0.05, warmup=1)  # one epoch of 20 steps, and the radius would come after it
    assert "training ended at eps 0, below 0.05" in str(short_of(jumps, 19 / 20, 0.05))
    assert short_of(jumps, 1.0, 0.05) is None
