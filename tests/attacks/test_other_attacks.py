"""Cross-entropy and Square: what gradients of the smallest margin miss, inside the box, the same in every batch."""

import pytest
import torch
from torch import Tensor

from certtrain.attacks import PGD, CrossEntropyPGD, Square
from certtrain.bounds import Box
from certtrain.errors import ConfigError

PARTS = [PGD(8, 2), CrossEntropyPGD(8, 2), Square(60)]


def steps_without_slope(points: Tensor, images: Tensor) -> Tensor:
    """The margin falls by steps as pixels come to the top: its gradient is zero everywhere."""
    high = (points > 0.55).to(points.dtype).flatten(1).mean(1, keepdim=True)
    return (0.9 - high) + 0 * points.flatten(1).sum(1, keepdim=True)


def bowl(points: Tensor, images: Tensor) -> Tensor:
    """Two margins, both smallest where all pixels are at their upper ends."""
    mean = points.flatten(1).mean(1, keepdim=True)
    return torch.cat([1 - mean, 1.1 - mean], 1)


def box_of(shape: tuple[int, ...], count: int = 3, eps: float = 0.1) -> Box:
    return Box.linf(torch.full((count, *shape), 0.5), eps)


def found(part: PGD | Square, margins, box: Box, keys: list[tuple[int, ...]], number: int = 0) -> tuple[Tensor, Tensor]:
    everywhere = torch.arange(len(box))
    at_center = margins(box.center, everywhere).detach()
    return part.restart(margins, box, keys, everywhere, at_center, number)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("shape", [(3, 6, 5), (17,), (4, 4), (1, 1, 1)])
def test_points_lie_in_the_box_and_have_the_margin_that_is_told(part: PGD | Square, shape: tuple[int, ...]) -> None:
    box = box_of(shape)
    points, margin = found(part, bowl, box, [(0, i) for i in range(3)])
    assert bool(((points >= box.lower) & (points <= box.upper)).all())
    torch.testing.assert_close(margin, bowl(points, torch.arange(3)).amin(1))
    assert bool((margin < 0.5).all()), "lower than at the centre"


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_an_image_is_attacked_in_the_same_way_in_every_batch(part: PGD | Square) -> None:
    box, keys = box_of((3, 6, 5)), [(7, i) for i in range(3)]
    together, alone = found(part, bowl, box, keys)[0], found(part, bowl, box[1:2], keys[1:2])[0]
    torch.testing.assert_close(together[1:2], alone)


def test_square_finds_what_has_no_gradient() -> None:
    box, keys = box_of((3, 6, 6)), [(0, i) for i in range(3)]
    _, flat = found(PGD(40, 1), steps_without_slope, box, keys)
    _, square = found(Square(500), steps_without_slope, box, keys)
    assert bool((flat > 0).all())
    assert bool((square < 0).all())


def test_queries_and_keys_decide() -> None:
    box, keys = box_of((3, 6, 6)), [(0, i) for i in range(3)]
    few, many = (found(Square(n), bowl, box, keys)[1] for n in (1, 200))
    assert many.mean() < few.mean()
    assert not torch.equal(
        found(Square(60), bowl, box, [(8, i) for i in range(3)])[1], found(Square(60), bowl, box, keys)[1]
    )


def test_cross_entropy_weighs_all_classes() -> None:
    """Of two margins, one nearly flat: the smallest alone leads to the end of the box that the sum does not choose."""

    def margins(points: Tensor, images: Tensor) -> Tensor:
        x = points[:, :1]
        return torch.cat([1.0 + 0.1 * x, *[1.001 + 0.2 * (0.5 - x)] * 9], 1)

    x = torch.full((1, 1), 0.2)
    _, smallest = PGD()._margin_and_slope(margins, x, torch.tensor([0]), None)
    _, summed = CrossEntropyPGD()._margin_and_slope(margins, x, torch.tensor([0]), None)
    assert float(smallest) > 0 > float(summed)


@pytest.mark.parametrize("options", [{"queries": -1}, {"queries": 1.0}, {"restarts": True}])
def test_options_out_of_range_are_refused(options: dict, as_users_call: None) -> None:
    with pytest.raises(ConfigError, match="queries and restarts must be whole numbers"):
        Square(**options)
