"""Projected gradient descent on any function that gives margins."""

import pytest
import torch
from torch import Tensor

from certtrain.attacks import PGD
from certtrain.bounds import Box
from certtrain.errors import ConfigError


def valleys(points: Tensor, images: Tensor) -> Tensor:
    """Two margins, whose lowest points are (0.1, 0.1) and (0.9, 0.9); those of image 1 are never negative."""
    ends = points.new_tensor([[0.1, 0.1], [0.9, 0.9]])
    squares = (points[:, None, :] - ends).square().sum(2)
    return squares - 0.01 + 0.01 * images[:, None]


def box(images: int = 2) -> Box:
    """Around (0.4, 0.4), where the first margin is the smaller one; both lowest points lie inside."""
    return Box(torch.zeros(images, 2), torch.full((images, 2), 0.95))


KEYS = [(0, 0), (0, 1)]


def test_what_is_enough_decides_when_it_stops() -> None:
    """A counterexample, or the lowest point of an image that has one already."""
    _, found = PGD(steps=60, restarts=2).worst(valleys, box(), KEYS)
    _, lowest = PGD(steps=60, restarts=2, enough=float("-inf")).worst(valleys, box(), KEYS)
    assert -0.01 < found[0] < 0
    assert lowest[0] == pytest.approx(-0.01, abs=1e-3)
    assert (lowest <= found).all()


def test_a_share_of_the_room_is_the_first_step() -> None:
    start = PGD(steps=0, restarts=1)
    _, at_center = start.center(valleys, box())
    begun, _ = start.restart(valleys, box(), KEYS, torch.arange(2), at_center, 0)
    still = PGD(steps=1, step_share=1e-6)
    reached, _ = still.restart(valleys, box(), KEYS, torch.arange(2), at_center, 0)
    assert 0 < (reached - begun).abs().max() <= 1e-6


def test_finds_the_lowest_point_of_a_function_that_is_no_network() -> None:
    points, lowest = PGD(steps=60, restarts=2).worst(valleys, box(), KEYS)
    assert lowest[0] < 0
    assert lowest[1] == pytest.approx(0.0, abs=1e-3)
    torch.testing.assert_close(valleys(points, torch.arange(2)).amin(1), lowest)


def test_restarts_take_the_rows_in_turn() -> None:
    """The second one lowers the margin that is smallest at the centre, the third one the other."""
    pgd = PGD(steps=60)
    _, at_center = pgd.center(valleys, box())
    everywhere = torch.arange(2)
    for number, row in ((1, at_center.argmin(1)), (2, at_center.argmax(1))):
        reached, _ = pgd.restart(valleys, box(), KEYS, everywhere, at_center, number)
        ends = torch.tensor([[0.1, 0.1], [0.9, 0.9]])[row]
        # An image whose margin is negative is left where it is: close to the end, not at it.
        torch.testing.assert_close(reached, ends, atol=0.12, rtol=0)


def test_a_start_depends_on_the_key_and_the_number_alone() -> None:
    pgd = PGD(steps=0)

    def starts(keys: list[tuple[int, ...]], number: int) -> Tensor:
        _, at_center = pgd.center(valleys, box(len(keys)))
        return pgd.restart(valleys, box(len(keys)), keys, torch.arange(len(keys)), at_center, number)[0]

    both = starts([(3, 1), (3, 2)], 0)
    assert torch.equal(starts([(3, 2)], 0)[0], both[1])
    assert not torch.equal(starts([(4, 2)], 0)[0], both[1])
    assert not torch.equal(starts([(3, 2)], 1)[0], both[1])


def test_parameters_of_what_is_attacked_get_no_gradients() -> None:
    weight = torch.ones(2, requires_grad=True)
    points, lowest = PGD(steps=3).worst(lambda x, images: (x * weight).sum(1, keepdim=True), box(), KEYS)
    assert weight.grad is None
    assert not points.requires_grad
    assert not lowest.requires_grad
    torch.testing.assert_close(lowest, torch.zeros(2))


def test_numbers_that_are_not_finite_win_nothing() -> None:
    """A NaN is no small margin: where it comes up, the other points stand."""

    def torn(points: Tensor, images: Tensor) -> Tensor:
        return torch.where(points[:, :1] < 0.3, torch.nan, points.sum(1, keepdim=True))

    points, lowest = PGD(steps=20, restarts=4).worst(torn, box(), KEYS)
    assert lowest.isfinite().all()
    assert (points[:, 0] >= 0.3).all()
    # Where it comes up at the centre, any number is better.
    _, lowest = PGD(steps=20, restarts=4).worst(lambda x, i: torn(x - 0.2, i), box(), KEYS)
    assert lowest.isfinite().all()


@pytest.mark.parametrize(
    "options", [{"steps": -1}, {"restarts": 1.5}, {"step_size": 0.0}, {"step_size": float("nan")}, {"step_share": 0.0}]
)
def test_options_out_of_range_are_refused(options: dict, as_users_call: None) -> None:
    with pytest.raises(ConfigError, match="attack: "):
        PGD(**options)
