"""The attack: finds what is there, stays in the box, and repeats itself."""

import json
from dataclasses import replace

import pytest
import torch
import zoo
from certify.fakes import diagonal, spike
from torch import Tensor, nn

from certtrain.bounds import Box
from certtrain.certify import Attack, AttackEnsemble
from certtrain.certify.counterexamples import float32_inside
from certtrain.certify.network import Network
from certtrain.errors import ConfigError


@pytest.fixture(scope="module")
def problem() -> tuple[Network, Tensor, Tensor]:
    """A network, float32 images with pixels at both ends of the range, and their predicted labels."""
    network = Network.of(zoo.make("residual", dtype=torch.float32), zoo.IMAGE)
    noise = torch.rand(6, *zoo.IMAGE, generator=torch.Generator().manual_seed(5))
    images = noise.mul(1.4).sub(0.2).clamp(0, 1)
    return network, images, network.logits(images).argmax(1)


def find(attack: Attack, problem: tuple[Network, Tensor, Tensor], eps: float, rows: slice = slice(None)):
    network, images, labels = problem
    box = Box.linf(images.double()[rows], eps)
    return box, *attack.find(network, box, labels[rows], list(range(len(images)))[rows])


def test_finds_the_corner_that_breaks_a_linear_network():
    network = Network.of(diagonal(), (2,))
    images = torch.tensor([[0.6, 0.5], [0.6, 0.3]], dtype=torch.float64)
    points, found = Attack().find(network, Box.linf(images, 0.1), torch.tensor([0, 0]), [0, 1])
    assert found.tolist() == [True, False]
    assert network.margins(points, torch.tensor([0, 0])).amin(1)[1] == pytest.approx(0.1, abs=1e-6)


def test_the_centre_is_tried_first():
    network = Network.of(spike(1e-3), (2,))
    centred, beside = torch.tensor([[[0.6, 0.5]], [[0.55, 0.5]]], dtype=torch.float64)
    for images, there in ((centred, True), (beside, False)):
        _, found = Attack(steps=0).find(network, Box.linf(images, 0.1), torch.tensor([0]), [0])
        assert found.tolist() == [there]


@pytest.mark.parametrize("eps", [0.3, 0.02, 1e-9, 0.0])
def test_points_never_leave_the_box(problem, eps: float):
    box, points, _ = find(Attack(steps=8), problem, eps)
    assert points.dtype == torch.float64
    assert bool(((points >= box.lower) & (points <= box.upper)).all())


def test_counterexamples_are_misclassified_in_both_precisions(problem):
    network, _, labels = problem
    _, points, found = find(Attack(steps=8), problem, 0.3)
    assert found.any()
    assert (network.logits(points).argmax(1) != labels)[found].all()
    assert (network.logits(points.float()).argmax(1) != labels)[found].all()
    # They are float32 numbers: what float32 judges is the same point.
    assert torch.equal(points.float().double(), points)


def test_the_seed_decides(problem):
    attack = Attack(steps=2, restarts=1)
    assert torch.equal(find(attack, problem, 0.001)[1], find(attack, problem, 0.001)[1])
    assert not torch.equal(
        find(attack, problem, 0.001)[1], find(Attack(steps=2, restarts=1, seed=1), problem, 0.001)[1]
    )


def test_an_image_is_attacked_in_the_same_way_in_every_batch(problem):
    attack = Attack(steps=8)
    together, alone = find(attack, problem, 0.001)[1], find(attack, problem, 0.001, slice(2, 3))[1]
    torch.testing.assert_close(together[2:3], alone, atol=1e-6, rtol=0)


def test_more_steps_and_restarts_find_lower_margins(problem):
    network, _, labels = problem

    def lowest(attack: Attack) -> float:
        return float(network.margins(find(attack, problem, 0.002)[1], labels).amin(1).mean())

    three, one, none = Attack(steps=8), Attack(steps=8, restarts=1), Attack(steps=0)
    assert lowest(three) <= lowest(one) < lowest(none)


def test_the_step_size_is_in_the_unit_of_the_inputs(problem):
    network, _, labels = problem
    _, tiny, _ = find(Attack(steps=3, restarts=1, step_size=1e-9), problem, 0.01)
    _, usual, _ = find(Attack(steps=3, restarts=1), problem, 0.01)
    assert network.margins(usual, labels).amin(1).mean() < network.margins(tiny, labels).amin(1).mean()


def test_float32_boxes_lie_inside_float64_ones():
    lower = torch.rand(1000, 1, dtype=torch.float64)
    box = Box(lower, lower + torch.rand(1000, 1, dtype=torch.float64) * 0.1 + 1e-6)
    inner = float32_inside(box)
    assert (inner.lower.double() >= box.lower).all()
    assert (inner.upper.double() <= box.upper).all()
    assert (inner.lower.double() - box.lower).max() < 1e-7


@pytest.mark.parametrize("options", [{"steps": -1}, {"restarts": -1}, {"step_size": 0.0}, {"seed": -1}])
def test_options_out_of_range_are_refused(options: dict):
    with pytest.raises(ConfigError, match="attack"):
        Attack(**options)


def staircase() -> nn.Module:
    """Label 1 wins where both pixels are in the uppermost steps; rounding leaves no gradient."""

    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            high = (x > 0.62).to(x.dtype).sum(1, keepdim=True) + 0 * x.sum(1, keepdim=True)
            return torch.cat([1.5 - high, torch.zeros_like(high)], 1)

    return Rounded()


def test_an_ensemble_finds_what_gradients_miss():
    network = Network.of(diagonal(), (2,))
    network = replace(network, module=staircase(), values={dtype: {} for dtype in network.values})
    box = Box.linf(torch.tensor([[0.6, 0.55]], dtype=torch.float64), 0.1)
    question = network, box, torch.tensor([0]), [0]
    assert Attack(steps=40, restarts=1).find(*question)[1].tolist() == [False]
    points, found = AttackEnsemble(steps=40, restarts=1).find(*question)
    assert found.tolist() == [True]
    assert bool(((points >= box.lower) & (points <= box.upper)).all())
    assert network.misclassifies(points, torch.tensor([0])).tolist() == [True]


def test_an_ensemble_begins_as_the_attack_does(problem):
    alone, first = find(Attack(steps=8), problem, 0.3), find(AttackEnsemble(steps=8), problem, 0.3)
    broken = alone[2]
    assert broken.any()
    assert bool(first[2][broken].all())
    assert torch.equal(alone[1][broken], first[1][broken])


def test_settings_of_attacks_tell_them_apart():
    kinds = (Attack(), Attack(steps=3), Attack(seed=1), AttackEnsemble(), AttackEnsemble(queries=7))
    settings = [json.dumps(attack.settings()) for attack in kinds]
    assert len(set(settings)) == len(kinds)
    assert Attack().settings() == {"steps": 40, "restarts": 3, "step_size": None, "seed": 0}, "as ledgers have it"


@pytest.mark.parametrize("options", [{"steps": -1}, {"queries": -1}, {"seed": -1}])
def test_an_ensemble_refuses_what_its_parts_refuse(options: dict):
    with pytest.raises(ConfigError, match="attack"):
        AttackEnsemble(**options)
