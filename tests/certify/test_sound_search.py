"""Complete search in sound arithmetic: what it closes holds for the network in float32, summed in any order."""

import math
from functools import lru_cache
from random import Random

import pytest
import torch
from certify.fakes import diagonal, linear, paired, points, run, spike
from certify.search_cases import random_network, uniform
from summation import results
from torch import Tensor, nn

import certtrain
from certtrain import Property
from certtrain.bounds import Box, margin_spec
from certtrain.certify import Attack
from certtrain.certify.arithmetic import NOTHING, Sound
from certtrain.certify.milp import exact_minimum
from certtrain.certify.network import Network
from certtrain.certify.search.whole import BranchAndBound
from certtrain.certify.verifiers import choose, resolve
from certtrain.certify.verifiers.bab import Bab
from certtrain.errors import ConfigError

SPLITTINGS = ("neurons", "inputs")
HUGE = 2.0**24


def proves(model: nn.Module, box: Box, splitting: str, arithmetic: str, label: int = 0) -> bool:
    """Whether branch and bound proves the label."""
    (verifier,) = resolve([Bab(splitting=splitting)])
    if arithmetic == "sound":
        verifier = verifier.judged_in(Sound())
    network = Network.of(model, box.lower.shape[1:])
    return bool(verifier.smallest_margins(network, box, torch.tensor([label]), math.inf).margins > 0)


def cube(center: list[float], radius: list[float]) -> Box:
    middle, half = (torch.tensor([x], dtype=torch.float64) for x in (center, radius))
    return Box(middle - half, middle + half)


# Networks that rounding decides.


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_a_class_that_the_order_of_summation_decides_is_not_proved(splitting: str) -> None:
    """Class 0 leads by 0.25, which is lost wherever 0.75 meets 2^24 before its negative; 2^2 loses nothing."""
    box = cube([1.0, 1.0, 0.75], [0.0, 0.0, 0.0])
    for size, sound in ((HUGE, False), (4.0, True)):
        model = nn.Sequential(linear([[size, -size, 1.0], [0.0] * 3], [0.0, 0.5]))
        assert proves(model, box, splitting, "float64")
        assert proves(model, box, splitting, "sound") is sound


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_what_only_splits_prove_is_not_proved_where_their_signs_are_lost(splitting: str) -> None:
    """Class 0 leads by relu(z) - relu(-z) - z + 0.25, which is 0.25; in float32 each of the three z is another."""
    box = cube([1.0, 1.0, 0.0], [0.0, 0.0, 0.8])
    for size, sound in ((HUGE, False), (4.0, True)):
        first = linear([[size, -size, 1.0], [-size, size, -1.0], [size, -size, 1.0]], [0.0, 0.0, 1.0])
        model = nn.Sequential(first, nn.ReLU(), linear([[1.0, -1.0, -1.0], [0.0] * 3], [1.25, 0.0]))
        assert proves(model, box, splitting, "float64")
        assert proves(model, box, splitting, "sound") is sound


@lru_cache
def cancelling(seed: int, margin: float) -> tuple[Network, Box, Tensor, int]:
    """A network whose smallest margin is known, behind terms a thousand times as large that cancel.

    Returns:
        The network, a box of three inputs that have a width, a point of it with about that margin, and the label.
    """
    plain = random_network(seed)
    large = 4096 * (1 + uniform(8, 1, seed=seed).float())
    first = linear(torch.cat([plain.module[0].weight, large, -large], dim=1).tolist(), plain.module[0].bias.tolist())
    module = nn.Sequential(first, *plain.module[1:]).requires_grad_(False)
    center, radius = torch.ones(1, 5).double(), torch.zeros(1, 5).double()
    center[:, :3], radius[:, :3] = uniform(1, 3, seed=seed), 0.2
    box, label = Box(center - radius, center + radius), int(module(center.float()).argmax())
    found = Network.of(module, (5,))
    spec = margin_spec([label], 3).double()
    exact = exact_minimum(found.graph, found.values[torch.float64], box, spec)
    module[-1].bias.data[label] -= float(exact.upper.min()) - margin
    return Network.of(module, (5,)), box, exact.points[0, int(exact.upper[0].argmin())], label


def smallest_in_any_order(network: Network, x: Tensor, label: int, orders: int) -> float:
    spec, smallest = margin_spec([label], 3).double()[0], math.inf
    for order in range(orders):
        found = results(network.graph, dict(network.values[torch.float32]), x.float(), Random(order))[-1]
        smallest = min(smallest, float((found.double() @ spec.mT).min()))
    return smallest


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_margins_that_an_order_of_summation_turns_negative_are_not_proved(splitting: str) -> None:
    flipped = 0
    for seed in range(3):
        network, box, point, label = cancelling(seed, 1e-4)
        assert proves(network.module, box, splitting, "float64", label)
        assert not proves(network.module, box, splitting, "sound", label)
        flipped += smallest_in_any_order(network, point[None], label, 60) < 0
    assert flipped > 0


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_what_is_proved_holds_in_every_order(splitting: str) -> None:
    for seed in range(3):
        network, box, point, label = cancelling(seed, 0.15)
        assert proves(network.module, box, splitting, "sound", label)
        x = box.lower + (box.upper - box.lower) * uniform(200, 5, seed=seed)
        assert smallest_in_any_order(network, torch.cat([x, point[None]]), label, 10) > 0


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_what_overflows_in_float32_is_left_open(splitting: str) -> None:
    model = nn.Sequential(linear([[2.0**100, 0.0], [0.0, 2.0**100]]), nn.ReLU(), linear([[2.0**20, 0.0], [0.0, 1.0]]))
    network = Network.of(model, (2,))
    verifier = Bab(splitting=splitting, arithmetic=Sound())
    proved = verifier.smallest_margins(network, cube([1.0, 0.5], [0.0, 0.0]), torch.tensor([0]), math.inf)
    assert proved.margins.tolist() == [NOTHING]
    assert proved.finished.all()


# The same answers wherever rounding does not matter, everywhere that the arithmetic is named.


def test_ordinary_networks_have_the_same_verdicts() -> None:
    torch.manual_seed(0)
    model = random_network(1, inputs=12).module
    images = torch.rand((5, 12))
    labels, statuses = model(images).argmax(1), {}
    for arithmetic in ("float64", "sound"):
        verdicts = certtrain.certify(
            model, images, labels, 0.12, relaxations="bab", arithmetic=arithmetic, attack=Attack(steps=0)
        )
        statuses[arithmetic] = [verdict.status for verdict in verdicts]
    assert statuses["sound"] == statuses["float64"]
    assert set(statuses["sound"]) == {"verified", "falsified"}


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_verdicts_by_hand(splitting: str) -> None:
    assert proves(paired(), cube([0.5, 0.5], [0.1, 0.1]), splitting, "sound")
    assert proves(spike(0.05), cube([0.3, 0.5], [0.2, 0.2]), splitting, "sound")
    assert not proves(spike(0.05), cube([0.5, 0.5], [0.2, 0.2]), splitting, "sound")
    assert run(spike(0.05), points((0.5, 0.5)), 0.2, Bab(splitting=splitting), arithmetic="sound")[0].falsified_by


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_properties_are_decided(splitting: str) -> None:
    """|z| <= -0.1 or |z| >= 1.7 for z = x1 - x2 in [-1.6, 1.6]: two conjunctions, and what rounding leaves of them."""
    for size, status in ((4.0, "unsat"), (HUGE, "unknown")):
        first = linear([[size, 1.0, -1.0, -size], [-size, -1.0, 1.0, size]])
        model = nn.Sequential(first, nn.ReLU(), linear([[1.0, 1.0], [1.0, -1.0]]))
        rows = [([[1.0, 0.0]], [-0.1]), ([[-1.0, 0.0], [0.0, -1.0]], [-1.7, 0.0])]
        property = Property.from_constraints([1.0, -0.8, -0.8, 1.0], [1.0, 0.8, 0.8, 1.0], rows)
        search = BranchAndBound(splitting=splitting)
        for arithmetic, expected in (("float64", "unsat"), ("sound", status)):
            found = certtrain.decide(model, property, 30, search=search, arithmetic=arithmetic)
            assert found.status == expected
            assert (found.bound > 0) is (expected == "unsat")


def test_its_name_is_part_of_the_settings_and_no_option() -> None:
    (plain,), (sound,) = resolve("bab"), choose(["bab"], {}, Sound())
    assert sound.describe() == plain.describe() + ", arithmetic=sound"
    with pytest.raises(ConfigError, match="verifier bab has no option 'arithmetic'"):
        choose(["bab"], {"bab": {"name": "bab", "arithmetic": "sound"}})
    with pytest.raises(ConfigError, match="verifier milp has no arithmetic to choose"):
        resolve("milp", Sound())


def test_networks_that_are_not_of_float32_are_refused() -> None:
    model = diagonal().double()
    model[0].weight.data += 2.0**-40
    message = r"in float32, which '0.weight' is no tensor of: convert the network with .float\(\)"
    with pytest.raises(ConfigError, match=message):
        run(model, points((0.9, 0.1)), 0.01, "bab", arithmetic="sound")
    property = Property.robust([0.9, 0.1], 0, 0.01, 2)
    with pytest.raises(ConfigError, match=message):
        certtrain.decide(model, property, arithmetic="sound")
    with pytest.raises(ConfigError, match="^arithmetic must be one of float64, sound, got 'sond'; did you mean"):
        certtrain.decide(diagonal(), property, arithmetic="sond")
