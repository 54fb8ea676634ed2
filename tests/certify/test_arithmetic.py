"""Arithmetics: what a positive margin is worth. `sound` must hold for the network in float32, summed in any order."""

from itertools import permutations
from pathlib import Path

import pytest
import torch
from certify.fakes import constant, diagonal, linear, points, run
from certify.test_verifiers import Scripted
from sklearn.datasets import load_digits
from torch import Tensor, nn

from certtrain.bounds import Box, Intersection, build, relaxations
from certtrain.certify import RelaxationVerifier, certify
from certtrain.certify.arithmetic import FLOAT64, Sound, arithmetic_named
from certtrain.certify.network import Network
from certtrain.certify.verifiers import choose
from certtrain.errors import ConfigError

FOREVER = float("inf")
HUGE = 2.0**24


def proves(name: str, arithmetic: str, model: nn.Module, image: list[float], eps: float = 0.0) -> bool:
    """Whether label 0 is proved."""
    network = Network.of(model.eval(), (len(image),))
    verifier = RelaxationVerifier(name, build(name), arithmetic_named(arithmetic))
    box = Box.linf(torch.tensor([image], dtype=torch.float64), eps, clip=None)
    with torch.no_grad():
        return bool(verifier.smallest_margins(network, box, torch.tensor([0]), FOREVER).margins > 0)


def in_order(weights: list[float], x: list[float]) -> float:
    """A sum of products in float32, from left to right."""
    total = torch.zeros(())
    for w, value in zip(weights, x, strict=True):
        total = total + torch.tensor(w) * torch.tensor(value)
    return float(total)


@pytest.mark.parametrize("name", relaxations())
def test_a_class_that_the_order_of_summation_decides_is_not_proved(name: str) -> None:
    """Class 0 leads by 0.25, which is lost wherever 0.75 meets 2^24 before its negative."""
    by_float64 = []
    for order in permutations([(HUGE, 1.0), (-HUGE, 1.0), (1.0, 0.75)]):
        weights, image = [w for w, _ in order], [x for _, x in order]
        model = nn.Sequential(linear([weights, [0.0] * 3], [0.0, 0.5]))
        by_float64.append(proves(name, "float64", model, image))
        assert not proves(name, "sound", model, image)
    sums = {
        in_order([w for w, _ in o], [x for _, x in o]) for o in permutations([(HUGE, 1.0), (-HUGE, 1.0), (1.0, 0.75)])
    }
    assert min(sums) - 0.5 < 0 < max(sums) - 0.5
    assert any(by_float64)


@pytest.mark.parametrize("name", relaxations())
def test_rounding_in_a_hidden_layer_counts(name: str) -> None:
    """The same behind a ReLU, where what was lost comes back a thousandfold."""
    model = nn.Sequential(
        linear([[HUGE, 1.0, -HUGE], [0.0, 0.0, 0.0]], [0.0, 1.0]),
        nn.ReLU(),
        linear([[1000.0, 0.0], [0.0, 500.0]]),
    )
    assert not proves(name, "sound", model, [1.0, 0.75, 1.0])
    small = nn.Sequential(linear([[4.0, 1.0, -4.0], [0.0, 0.0, 0.0]], [0.0, 1.0]), *model[1:])
    assert proves(name, "sound", small, [1.0, 0.75, 1.0])


@pytest.mark.parametrize("name", relaxations())
def test_what_overflows_in_float32_is_open_and_no_error(name: str) -> None:
    model = nn.Sequential(linear([[2.0**100, 0.0], [0.0, 2.0**100]]), nn.ReLU(), linear([[2.0**20, 0.0], [0.0, 1.0]]))
    network = Network.of(model, (2,))
    verifier = RelaxationVerifier(name, build(name), Sound())
    box = Box.linf(torch.tensor([[1.0, 0.5]], dtype=torch.float64), 0.0)
    margins = verifier.smallest_margins(network, box, torch.tensor([0]), FOREVER).margins
    assert margins.tolist() == [torch.finfo(torch.float64).min]


def test_an_intersection_is_proved_by_the_best_of_its_parts() -> None:
    model, image = diagonal(), [0.9, 0.1]
    network = Network.of(model, (2,))
    box = Box.linf(torch.tensor([image], dtype=torch.float64), 0.1)
    parts = tuple(build(name) for name in ("ibp", "deeppoly"))
    both = Sound().smallest_margins(Intersection(parts), network, box, torch.tensor([[[1.0, -1.0]]]))
    each = [Sound().smallest_margins(part, network, box, torch.tensor([[[1.0, -1.0]]])) for part in parts]
    assert both == torch.maximum(*each)
    assert 0.59 < float(both) < 0.6


def test_margins_that_are_proved_are_those_of_float64_but_for_rounding() -> None:
    network = Network.of(diagonal(), (2,))
    box = Box.linf(torch.tensor([[0.9, 0.1], [0.5, 0.6]], dtype=torch.float64), 0.1)
    spec = torch.tensor([[[1.0, -1.0]]] * 2)
    exact, proved = (a.smallest_margins(build("ibp"), network, box, spec) for a in (FLOAT64, Sound()))
    assert 0 < float(exact[0] - proved[0]) < 1e-5
    assert exact[1] == proved[1] < 0  # nothing to prove


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    pixels, classes = load_digits(return_X_y=True)
    inputs, labels = torch.from_numpy(pixels).float().div(16).reshape(-1, 1, 8, 8), torch.from_numpy(classes)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 50),
        nn.ReLU(),
        nn.Linear(50, 10),
    )
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        chosen = torch.randint(len(inputs), (200,))
        loss = nn.functional.cross_entropy(network(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval(), inputs[:60], labels[:60]


@pytest.mark.parametrize("name", ["ibp", "deeppoly"])
def test_nearly_as_many_images_are_proved_of_a_trained_network(
    digits: tuple[nn.Module, Tensor, Tensor], name: str
) -> None:
    model, inputs, labels = digits
    eps = 0.002 if name == "ibp" else 0.02
    counts = [
        sum(v.status == "verified" for v in certify(model, inputs, labels, eps, relaxations=name, arithmetic=how))
        for how in ("float64", "sound")
    ]
    assert 10 < counts[0] < 60
    assert 0.95 * counts[0] <= counts[1] <= counts[0]


def test_ledgers_of_different_arithmetics_never_mix(tmp_path: Path) -> None:
    inputs, ledger = points((0.9, 0.1)), tmp_path / "ledger.jsonl"
    run(diagonal(), inputs, 0.01, "ibp", ledger=ledger)
    with pytest.raises(ConfigError, match="arithmetic=sound"):
        run(diagonal(), inputs, 0.01, "ibp", ledger=ledger, arithmetic="sound")
    (verdict,) = run(diagonal(), inputs, 0.01, "ibp", arithmetic="sound")
    assert (verdict.status, verdict.verified_by) == ("verified", "ibp")


def test_a_verifier_of_its_own_arithmetic_keeps_it() -> None:
    given = RelaxationVerifier("mine", build("ibp"), Sound())
    (verifier,) = choose(["ibp"], {}, Sound())
    assert given.options() == verifier.options() == "IBP(), arithmetic=sound"
    assert RelaxationVerifier("mine", build("ibp")).options() == "IBP()"


@pytest.mark.parametrize(
    ("model", "verifiers", "arithmetic", "message"),
    [
        (diagonal(), ["ibp"], "exact", "certify.arithmetic must be one of float64, sound, got 'exact'"),
        (diagonal(), ["ibp"], "sond", "did you mean"),
        (diagonal(), [("mine", constant(1.0))], "sound", "sound needs native relaxations, not Scripted"),
        (diagonal(), [Scripted("any")], "sound", "verifier any has no arithmetic to choose"),
        (diagonal().double(), ["ibp"], "sound", None),
    ],
)
def test_what_it_cannot_judge_is_one_line(
    model: nn.Module, verifiers: list, arithmetic: str, message: str | None
) -> None:
    if message is None:
        model[0].weight.data += 2.0**-40
        message = r"in float32, which '0.weight' is no tensor of: convert the network with .float\(\)"
    with pytest.raises(ConfigError, match=message) as error:
        run(model, points((0.9, 0.1)), 0.01, *verifiers, arithmetic=arithmetic)
    assert "\n" not in str(error.value)
