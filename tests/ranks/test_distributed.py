"""What ranks exchange, in real processes."""

import pytest
import rank_jobs
import torch

from certtrain.errors import ConfigError
from certtrain.gradients import Alone, Layout
from certtrain.gradients.noise import GaussianNoise
from certtrain.gradients.ranks import portion
from certtrain.training.shards import Shard

ITEMS = 10
# 2 x ITEMS losses are gathered; a gradient has 7 numbers.
LAYOUTS = {
    "population": ("population", (4,), 4, 1),
    "hybrid": ("hybrid", (4, 2), 2, 2),
    "one group": ("hybrid", (4, 1), 1, 4),
    "batch": ("batch", (4,), 1, 4),
}


def test_shares_are_contiguous_complete_and_even() -> None:
    for count in range(12):
        for parts in range(1, 6):
            shares = [portion(count, part, parts) for part in range(parts)]
            assert [item for share in shares for item in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("name", LAYOUTS)
def test_losses_arrive_in_order_and_gradients_are_added_once(name: str) -> None:
    layout, arguments, groups, per_group = LAYOUTS[name]
    found = rank_jobs.on_ranks(4, rank_jobs.exchange, layout, arguments, ITEMS)
    numbers = torch.arange(float(ITEMS))
    # Every image of the batch belongs to one rank of each group, every item to one group.
    assert sorted(i for answer in found for i in answer["shard"]) == sorted(list(range(7)) * groups)
    assert sorted(i for answer in found for i in answer["share"]) == sorted(list(range(ITEMS)) * per_group)
    for answer in found:
        torch.testing.assert_close(answer["gathered"], torch.stack([numbers, -numbers]))
        # Where a rank's gradient is that of its part of the batch, all of them count.
        copies = 1 if layout == "batch" else per_group
        torch.testing.assert_close(answer["w"], torch.full((2, 3), float(ITEMS * per_group / copies)))
        torch.testing.assert_close(answer["b"], torch.tensor([4.0 / copies]))
        assert torch.equal(answer["w"], found[0]["w"])


def test_a_generation_sends_its_losses_and_one_gradient() -> None:
    for answer in rank_jobs.on_ranks(4, rank_jobs.exchange, "population", (4,), ITEMS):
        assert answer["traffic"] == (2 * ITEMS, 7, 2)
    for answer in rank_jobs.on_ranks(4, rank_jobs.exchange, "hybrid", (4, 2), ITEMS):
        # Inside a group the losses of its own share are added up first.
        assert answer["traffic"] == (2 * ITEMS + 2 * ITEMS // 2, 7, 3)


@pytest.mark.parametrize(("size", "groups"), [(2, None), (4, None), (4, 2), (2, 1), (3, None)])
def test_every_rank_gets_the_gradient_of_one_process(size: int, groups: int | None) -> None:
    """10 pairs: uneven shares on 3 and 4 ranks."""
    ((expected, loss),) = rank_jobs.on_ranks(1, rank_jobs.estimate, None, 2 * ITEMS)
    for gradient, value in rank_jobs.on_ranks(size, rank_jobs.estimate, groups, 2 * ITEMS):
        assert value == pytest.approx(loss, abs=1e-6)
        for name, g in gradient.items():
            torch.testing.assert_close(g, expected[name], atol=1e-6, rtol=1e-6)


def test_a_sample_that_is_not_finite_on_one_rank_is_dropped_on_all() -> None:
    noise = GaussianNoise(0, 0.1).sample({"x": torch.zeros(1, dtype=torch.float64)}, 0, range(20))["x"]
    dropped = 2 * int((noise.abs() > 0.1).sum())
    assert dropped > 0
    for gradient, count in rank_jobs.on_ranks(2, rank_jobs.mean_gradient, 40):
        assert gradient == pytest.approx(1.0)
        assert count == dropped


def test_groups_must_divide_the_ranks() -> None:
    with pytest.raises(ConfigError, match=r"pgpe\.groups must divide the number of ranks, 4, got 3"):
        Layout.hybrid(4, 3)


def test_a_rank_without_images_has_no_weight() -> None:
    class Third(Alone):
        def shard(self, images: int) -> range:
            return portion(images, 2, 4)

    inputs, labels = torch.rand(3, 1, 2, 2), torch.arange(3)
    some = Shard.of((inputs, labels), Third())
    assert (len(some.inputs), some.weight) == (1, pytest.approx(1 / 3))
    none = Shard.of((inputs[:1], labels[:1]), Third())
    assert (len(none.inputs), none.weight) == (1, 0.0)
