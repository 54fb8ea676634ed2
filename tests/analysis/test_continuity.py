"""Jumps: found where they are known in closed form, and nowhere in what is proved to be continuous."""

import math

import pytest
import torch
from torch import nn

from certtrain.analysis import Subject, continuity, find_jumps
from certtrain.analysis.continuity import on_line
from certtrain.bounds import build
from certtrain.networks import parameters, trace

NAMES = ("ibp", "hbox", "zonotope", "crown_ibp", "deeppoly")


def test_jumps_of_a_function_among_kinks_slopes_and_curvature() -> None:
    def function(s: torch.Tensor) -> torch.Tensor:
        smooth = 30 * s + 5 * (7 * s).sin() + 3 * (s - 0.123).abs()
        return smooth + 0.25 * (s >= 0.2) - 0.5 * (s >= 0.2007) + 1e-3 * (s >= -1 / 3)

    found = find_jumps(function, -1.0, 1.0, 128)
    assert [round(jump.size, 8) for jump in found] == [1e-3, 0.25, -0.5]
    for jump, true in zip(found, (-1 / 3, 0.2, 0.2007), strict=True):
        assert jump.position < true <= jump.position + 1e-15


def test_more_jumps_than_intervals() -> None:
    found = find_jumps(lambda s: (10 * s + 0.05).floor(), 0.0, 1.0, 3)
    assert len(found) == 10
    assert all(jump.size == 1 for jump in found)


def test_nothing_where_nothing_jumps() -> None:
    assert find_jumps(lambda s: (s - 0.3).abs() ** 0.5 + (20 * s).cos(), 0.0, 1.0, 32) == ()


def neuron(weight: float, bias: float) -> tuple[nn.Module, Subject]:
    """x in [-1, 1] -> z = weight · x + bias -> ReLU -> two logits of which the first is the label's."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    for parameter, value in zip(network.parameters(), ([[weight]], [bias], [[1.0], [0.0]], [0.5, 0.0]), strict=True):
        parameter.data = torch.tensor(value, dtype=torch.float64)
    params = {name: p.detach() for name, p in parameters(network).items()}
    subject = Subject(
        trace(network, (1, 1, 1)),
        params,
        torch.zeros(1, 1, 1, 1, dtype=torch.float64),
        torch.tensor([0]),
        1.0,
        {name: build(name) for name in NAMES},
        clip=None,
    )
    return network, subject


def jumps_along_the_bias(name: str, weight: float) -> list[tuple[float, float]]:
    """(bias, change of the smallest margin) where the bound of a neuron with bounds b ± |weight| jumps."""
    _, subject = neuron(weight, 0.0)
    along = {k: torch.zeros_like(p) for k, p in subject.params.items()}
    along["1.bias"] += 1.0
    problem = subject.problem(name)
    found = find_jumps(
        on_line(lambda p: problem.lower_margins(p).amin(), subject.params, along, "loop"), -3.07, 3.01, 64
    )
    return [(jump.position, jump.size) for jump in found]


@pytest.mark.parametrize("name", ["ibp", "zonotope"])
def test_intervals_and_zonotopes_are_continuous(name: str) -> None:
    assert jumps_along_the_bias(name, 1.25) == []


@pytest.mark.parametrize("name", ["crown_ibp", "deeppoly"])
def test_adaptive_slopes_jump_where_both_ends_are_equally_far(name: str) -> None:
    """Margin's lower line: slope 0 gives 0.5, slope 1 gives 0.5 + l. At |l| = u, which is b = 0, l = -1.25."""
    ((position, size),) = jumps_along_the_bias(name, 1.25)
    assert position == pytest.approx(0.0, abs=1e-14)
    assert size == pytest.approx(-1.25, rel=1e-12)


def test_hbox_of_one_neuron_is_its_box_and_jumps_nowhere() -> None:
    """One crossing neuron becomes [0, u], and at l = 0 that is [l, u]: it takes a second reader to see the jump."""
    assert jumps_along_the_bias("hbox", 1.25) == []


def test_hbox_jumps_where_a_lower_end_passes_zero() -> None:
    """Two neurons z = w x + b read the same pixel and are subtracted: margin 0.5 + relu(z_1) - relu(z_2).

    While both are active (l = b - 1 >= 0) the pixel cancels: 0.5. When they cross they are boxes [0, u] that know
    nothing of each other: 0.5 + 0 - u, and u = 2 at l = 0.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    given = ([[1.0], [1.0]], [0.0, 0.0], [[1.0, -1.0], [0.0, 0.0]], [0.5, 0.0])
    for parameter, value in zip(network.parameters(), given, strict=True):
        parameter.data = torch.tensor(value, dtype=torch.float64)
    params = {name: p.detach() for name, p in parameters(network).items()}
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for name in ("hbox", "ibp", "zonotope"):
        subject = Subject(trace(network, (1, 1, 1)), params, x, torch.tensor([0]), 1.0, {name: build(name)}, clip=None)
        along = {k: torch.ones_like(p) if k == "1.bias" else torch.zeros_like(p) for k, p in params.items()}
        problem = subject.problem(name)
        line = on_line(lambda p, problem=problem: problem.lower_margins(p).amin(), params, along, "loop")
        found = find_jumps(line, 0.3, 1.61, 16)
        if name == "hbox":
            ((position, size),) = [(jump.position, jump.size) for jump in found]
            assert position == pytest.approx(1.0, abs=1e-14)
            assert size == pytest.approx(2.0, rel=1e-12)
        else:
            assert found == ()


def random_subject() -> Subject:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    params = {name: p.detach().double() * 2 for name, p in parameters(network).items()}
    inputs = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    relaxations = {name: build(name) for name in NAMES}
    return Subject(trace(network.double(), (1, 4, 4)), params, inputs, torch.tensor([0, 1, 2]), 0.1, relaxations)


@pytest.mark.parametrize("name", NAMES)
def test_random_segments_jump_exactly_for_relaxations_that_choose(name: str) -> None:
    subject = random_subject()
    found = continuity(subject.loss(name), subject.params, 2, 0.2, 16, 0, "vmap")
    assert (found.count > 0) is (name in ("hbox", "crown_ibp", "deeppoly"))
    assert found.rate == pytest.approx(found.count / 0.4)
    assert all(-0.5 <= jump.position <= 0.5 for segment in found.jumps for jump in segment)


def test_parallel_slopes_choose_nothing_and_do_not_jump() -> None:
    subject = random_subject()
    parallel = {"parallel": build("deeppoly", lower_slope="parallel", intersect=False)}
    continuous = Subject(subject.graph, subject.params, subject.inputs, subject.labels, 0.1, parallel)
    assert continuity(continuous.loss("parallel"), subject.params, 3, 0.3, 32, 0, "vmap").count == 0


def test_a_jump_of_a_loss_is_what_its_margin_makes_of_it() -> None:
    _, subject = neuron(1.25, 0.0)
    along = {k: torch.ones_like(p) if k == "1.bias" else torch.zeros_like(p) for k, p in subject.params.items()}
    (jump,) = find_jumps(on_line(subject.loss("deeppoly"), subject.params, along, "loop"), -1.0, 1.1, 8)
    assert jump.size == pytest.approx(math.log1p(math.exp(0.75)) - math.log1p(math.exp(-0.5)), rel=1e-9)
