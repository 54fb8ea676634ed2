"""Tightness and stable neurons, by hand and against what is known."""

import math

import pytest
import torch
from torch import nn

from certtrain.analysis import Subject, layers, tightness
from certtrain.attacks import PGD
from certtrain.bounds import Intersection, build
from certtrain.errors import ConfigError
from certtrain.networks import parameters, trace

NAMES = ("ibp", "hbox", "zonotope", "crown_ibp", "deeppoly")
LOWEST = PGD(steps=30, restarts=3, enough=-math.inf)


def subject_of(
    network: nn.Module, shape: tuple[int, ...], inputs: torch.Tensor, labels: list[int], eps: float
) -> Subject:
    params = {name: p.detach() for name, p in parameters(network).items()}
    relaxations = {name: build(name) for name in NAMES}
    return Subject(trace(network, shape), params, inputs, torch.tensor(labels), eps, relaxations, clip=None)


def by_hand() -> Subject:
    """Two pixels in [-1, 1] (image 0) and [9, 11] (image 1) -> x, x + 2, 0.5 x - 3 of the first, and -1 -> ReLU."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    network[1].weight.data = torch.tensor([[1.0, 0], [1, 0], [0.5, 0], [0, 0]]).double()
    network[1].bias.data = torch.tensor([0.0, 2, -3, -1]).double()
    network[3].weight.data = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0]]).double()
    network[3].bias.data = torch.zeros(2).double()
    inputs = torch.tensor([0.0, 10.0]).double().reshape(2, 1, 1, 1).expand(2, 1, 1, 2)
    return subject_of(network, (1, 1, 2), inputs, [0, 0], 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_stable_neurons_are_counted(name: str) -> None:
    """Image 0: [-1, 1] undecided, [1, 3] active, [-3.5, -2.5] and [-1, -1] inactive. Image 1: three active, one not."""
    (layer,) = layers(by_hand(), name)
    assert (layer.neurons, layer.active, layer.inactive, layer.undecided) == (4, 2.0, 1.5, 0.5)
    assert layer.width == pytest.approx((2 + 2 + 1 + 0) / 4)
    assert layer.undecided_width == pytest.approx(2.0)


def trained() -> Subject:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return subject_of(network.double(), (1, 2, 2), torch.rand(4, 1, 2, 2).double(), [0, 1, 2, 0], 0.3)


def test_bounds_lie_below_the_exact_margins_and_attacks_above() -> None:
    subject = trained()
    found = tightness(subject, LOWEST, 0, 60.0)
    assert found.unknown == ""
    assert (found.attacked >= found.exact).all()
    assert float((found.attacked - found.exact).max()) < 0.05
    for name in NAMES:
        assert (found.bounds[name] <= found.exact + 1e-4).all()
        assert found.gap_to_attack(name) >= found.gap_to_exact(name) - 1e-4
    assert found.gap_to_exact("deeppoly") < found.gap_to_exact("ibp")


def test_exact_margins_that_are_not_known_are_nan_and_say_why() -> None:
    subject = trained()
    none = tightness(subject, LOWEST, 0, 0.0)
    assert none.exact.isnan().all()
    assert none.unknown == "not asked for"
    assert math.isnan(none.gap_to_exact("ibp"))
    short = tightness(subject, LOWEST, 0, 1e-9)
    assert short.unknown == "1e-09 s were enough for 0 of 4 images"
    curved = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    asked = tightness(subject_of(curved, (1, 2, 2), torch.rand(1, 1, 2, 2).double(), [0], 0.1), LOWEST, 0, 5.0)
    assert "Tanh" in asked.unknown or "tanh" in asked.unknown


def test_what_cannot_be_analysed_is_refused() -> None:
    subject = trained()
    with pytest.raises(ConfigError, match="eps must be positive"):
        Subject(subject.graph, subject.params, subject.inputs, subject.labels, 0.0, subject.relaxations)
    with pytest.raises(ConfigError, match="at least one image"):
        Subject(subject.graph, subject.params, subject.inputs[:0], subject.labels[:0], 0.1, subject.relaxations)
    both = {"both": Intersection((build("ibp"), build("deeppoly")))}
    odd = Subject(subject.graph, subject.params, subject.inputs, subject.labels, 0.1, both)
    with pytest.raises(ConfigError, match="both tells no pre-activation bounds"):
        layers(odd, "both")


def test_sigma_is_relative_to_the_weights() -> None:
    subject = trained()
    assert subject.sigma(0.5) ** 2 * subject.size == pytest.approx(0.25 * subject.norm**2)
