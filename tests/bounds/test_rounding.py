"""Bounds of rounding errors: no order of summation in float32 exceeds them, nor do bounds computed in float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import pytest
import torch
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_networks import odd_network, varied_network
from rounding_cases import Question, exactly, random_question, tiny
from summation import results
from torch import Tensor, nn

from certtrain.activations import Interval, ReLU
from certtrain.bounds import Analysis, Box, Given, relaxations
from certtrain.bounds.rounding import assume, round_errors
from certtrain.bounds.rounding.sizes import BESIDE
from certtrain.errors import UnsupportedOperation
from certtrain.networks.ops import Activation, LinearMap, Values

EXACT = 1e-13


def from_float32(question: Question, found: list[Tensor]) -> list[Tensor]:
    """What every operation makes, without rounding, of the values that the last activations have in float32."""
    values = question.graph.values(question.double, question.box.lower)
    exact: list[Tensor] = []
    for op, y in zip(question.graph.ops, found, strict=True):
        if isinstance(op, Activation):
            exact.append(op.function(found[op.inputs[0]].double()))
        elif isinstance(op, LinearMap):
            source = question.graph.ops[op.inputs[0]]
            x = found[op.inputs[0]].double() if isinstance(source, Activation) else exact[op.inputs[0]]
            exact.append(op.forward(values, x))
        elif op.inputs:
            kinds = [isinstance(question.graph.ops[i], Activation) for i in op.inputs]
            exact.append(sum(found[i].double() if k else exact[i] for i, k in zip(op.inputs, kinds, strict=True)))  # type: ignore[arg-type]
        else:
            exact.append(y.double())
    return exact


def check(question: Question, seed: int, relaxation: str = "deeppoly", times: int = 3) -> None:
    errors, found = question.rounding(relaxation)
    sure = errors.confirms(found.hidden)
    lower = found.bounds.lower - errors.loss(question.spec)
    for k in range(times):
        values = results(question.graph, question.single, question.x, Random(seed + k))
        for index, (y, exact) in enumerate(zip(values, from_float32(question, values), strict=True)):
            tolerance = EXACT * (1 + exact.abs())
            assert ((y.double() - exact).abs() <= errors.sizes[index].error + tolerance)[sure].all(), index
            assert (y.double().abs() <= errors.sizes[index].value)[sure].all(), index
        for index, z in found.hidden.items():
            assert ((z.lower <= values[index]) & (values[index] <= z.upper))[sure].all()
        margins = (question.spec @ values[-1].double()[..., None])[..., 0]
        assert (lower <= margins)[sure].all()
    assert bool(sure.all())


@given(seed=st.integers(0, 10**6), varied=st.booleans(), eps=st.sampled_from([0.0, 0.01, 0.3]))
@settings(max_examples=40, deadline=None)
def test_no_order_of_summation_leaves_the_bounds(seed: int, varied: bool, eps: float) -> None:
    check(random_question(seed, varied_network if varied else odd_network, eps), seed)


@pytest.mark.parametrize("name", zoo.NETWORKS)
@pytest.mark.parametrize("relaxation", relaxations())
def test_bounds_of_every_relaxation_hold_for_the_network_in_float32(name: str, relaxation: str) -> None:
    check(Question(zoo.make(name), zoo.IMAGE, 0.02), 1, relaxation, times=1)


@pytest.mark.parametrize("name", ["strided", "residual", "pooled"])
def test_the_library_itself_stays_inside(name: str) -> None:
    question = Question(zoo.make(name), zoo.IMAGE, 0.02, batch=8)
    errors, found = question.rounding()
    with torch.no_grad():
        margins = (question.spec @ question.network(question.x).double()[..., None])[..., 0]
    assert bool(errors.confirms(found.hidden).all())
    assert (found.bounds.lower - errors.loss(question.spec) <= margins).all()


def test_errors_are_not_much_larger_than_they_must_be() -> None:
    """n equal products in a row: the sum of n numbers is off by up to about n²/4 units of one of them."""
    n = 4096
    network = nn.Linear(n, 2, bias=False)
    nn.init.constant_(network.weight, 1 + 2.0**-12)
    question = Question(network, (n,), 0.0, batch=1)
    question.box = Box(torch.full((1, n), 1 + 2.0**-13).double(), torch.full((1, n), 1 + 2.0**-13).double())
    errors, _ = question.rounding()
    exact, total = n * (1 + 2.0**-12) * (1 + 2.0**-13), torch.zeros(())
    for _ in range(n):
        total = total + torch.tensor(1 + 2.0**-12) * torch.tensor(1 + 2.0**-13)
    found = abs(float(total) - exact)
    assert found <= float(errors.sizes[-1].error.max()) <= 100 * found


@pytest.mark.parametrize("function", [torch.sigmoid, torch.tanh])
def test_the_library_keeps_to_the_units_in_the_last_place_that_are_assumed(function) -> None:
    x = torch.cat([torch.linspace(-100, 100, 400_001), torch.linspace(-1e-3, 1e-3, 1001)])
    error = (function(x).double() - function(x.double())).abs()
    assert (error <= 8 * 2.0**-24 * function(x.double()).abs() + 2.0**-125).all()


@contextmanager
def subnormal_numbers_are_zero() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor keeps subnormal numbers")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("slope", [1e-40, 2.0**30])
def test_what_a_leaky_relu_loses_where_numbers_underflow_is_counted(slope: float) -> None:
    """A slope that counts as zero, and an input that does where the slope is large."""
    size = 2.0**50 if slope < 1 else 2.0**-127
    question = Question(nn.Sequential(nn.LeakyReLU(slope)), (4,), 0.0)
    question.box = Box(*2 * [torch.full((2, 4), -size, dtype=torch.float64)])
    errors, _ = question.rounding()
    with subnormal_numbers_are_zero():
        found = question.network(question.box.lower.float())
    error = (found.double() - slope * question.box.lower).abs()
    assert (error > 0).all()
    assert (error <= errors.sizes[-1].error).all()


def test_a_variance_that_may_count_as_zero_beside_its_epsilon_proves_nothing() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3, eps=2.0**-110))
    network[0].running_var.fill_(2.0**-127)
    question = Question(network, (3,), 0.0)
    errors, _ = question.rounding()
    values = question.graph.values(question.double, question.box.lower)
    exact = question.graph.forward(values, question.box.center.float().double())
    with subnormal_numbers_are_zero():
        found = question.network(question.box.center.float())
    assert (found.double() - exact).abs().max() > 16 * 2.0**-24 * exact.abs().max()
    assert not errors.finite.any()


# float64: against rational numbers.


def rational_row(question: Question, found: Analysis, row: list, layer: int, shifts: dict[int, list]) -> Fraction:
    """A row over the output of a linear layer, carried back through the lines that were found, without rounding."""
    constant = Fraction(0)
    for k in range(layer, -1, -1):
        weight, bias = (exactly(question.double[f"{2 * k}.{name}"]) for name in ("weight", "bias"))
        row = [r + s for r, s in zip(row, shifts.get(2 * k + 1, [0] * len(row)), strict=True)]
        constant += sum(r * b for r, b in zip(row, bias, strict=True))
        row = [sum(r * w[j] for r, w in zip(row, weight, strict=True)) for j in range(len(weight[0]))]
        if k == 0:
            break
        lines = found.lines[2 * k]
        low, up, above = (exactly(x[0]) for x in (lines.lower_slope, lines.gap, lines.upper_intercept))
        constant += sum(min(r, 0) * a for r, a in zip(row, above, strict=True))
        row = [r * s + min(r, 0) * g for r, s, g in zip(row, low, up, strict=True)]
    lower, upper = exactly(question.box.lower[0]), exactly(question.box.upper[0])
    return constant + sum(min(r * a, r * b) for r, a, b in zip(row, lower, upper, strict=True))


@given(seed=st.integers(0, 10**6), magnitude=st.sampled_from([0, 3, 12, 24]), beta=st.sampled_from([0.0, 0.7, 1e6]))
@settings(max_examples=40, deadline=None)
def test_bounds_in_float64_are_off_by_no_more_than_is_claimed(seed: int, magnitude: int, beta: float) -> None:
    question = tiny(seed, magnitude)
    plain = question.analyse(lower_slope="zero", intersect=False)
    errors = round_errors(question.graph, question.double, question.box, assume(plain.hidden))
    last = errors.sizes[-1]
    decisions, multipliers, shifts = torch.tensor([[1.0, -1.0, 1.0, 0.0]]).double(), {}, {}
    given = Given()
    if beta:
        multipliers = {3: torch.full((1, 4), beta, dtype=torch.float64)}
        given = Given(splits={3: decisions}, multipliers=multipliers)
        shifts = {3: [Fraction(-beta * float(d)) for d in decisions[0]]}
    found = question.analyse(given=given, lower_slope="zero", intersect=False)
    paths = question.spec.abs()[0] @ last.paths[0] + beta * (errors.sizes[3].paths.sum() if beta else 0)
    claimed = Fraction(float(last.own_factor * paths[0]))
    exact = rational_row(question, found, exactly(question.spec[0, 0]), 2, shifts)
    assert abs(Fraction(float(found.bounds.lower[0, 0])) - exact) <= claimed
    assert errors.loss(question.spec, multipliers)[0, 0] >= float(claimed)
    if not beta:
        first = errors.sizes[1].paths[0] * errors.sizes[1].own_factor
        for i in range(4):
            unit = [Fraction(int(i == j)) for j in range(4)]
            low = rational_row(question, found, unit, 0, {})
            assert abs(Fraction(float(found.hidden[1].lower[0, i])) - low) <= Fraction(float(first[i]))


@given(ends=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).map(sorted))
@settings(max_examples=200, deadline=None)
def test_rounded_chords_are_off_by_no_more_than_is_claimed(ends: list[float]) -> None:
    """With the roundings that every activation is charged with."""
    z = Interval(*(torch.tensor([[end]], dtype=torch.float64) for end in ends))
    lines = ReLU().lines(z, "adaptive")
    tolerance = Fraction(BESIDE * 2.0**-53 * max(abs(ends[0]), abs(ends[1])) + 2.0**-400)
    slope = Fraction(float(lines.lower_slope)) + Fraction(float(lines.gap))
    for end in map(Fraction, ends):
        assert slope * end + Fraction(float(lines.upper_intercept)) >= max(end, 0) - tolerance
        assert Fraction(float(lines.lower_slope)) * end <= max(end, 0) + tolerance


@pytest.mark.parametrize("rule", ["adaptive", "zero", "parallel", "given"])
def test_planes_around_a_maximum_are_no_larger_than_is_claimed(rule: str) -> None:
    maxima = nn.Sequential(nn.Conv2d(2, 3, 2), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(27, 3))
    question = Question(maxima, zoo.IMAGE, 0.3)
    (function,) = [op.function for _, op in question.graph.activations]
    ((_, z),) = question.analyse().hidden.items()
    for size in (torch.maximum(z.lower.abs(), z.upper.abs()), 3 * torch.maximum(z.lower.abs(), z.upper.abs())):
        lines = function.lines(z, torch.rand_like(size) if rule == "given" else rule)
        none = torch.zeros_like(size)
        low = none if lines.lower_intercept is None else lines.lower_intercept
        for slope, intercept in ((lines.lower_slope, low), (lines.upper_slope, lines.upper_intercept)):
            found = function.collect(slope.abs() * size) + function.collect(intercept).abs()
            assert (found <= function.lines_size(size) * (1 + 1e-12)).all()


# What cannot be bounded.


def test_overflow_proves_nothing_and_spares_the_other_images() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    for layer in network[::2]:
        nn.init.constant_(layer.weight, 2.0**20)
    question = Question(network, (2,), 0.0)
    images = torch.tensor([[1.0, 1.0], [2.0**20, 2.0**20]], dtype=torch.float64)
    question.box = Box(images, images)
    errors, found = question.rounding()
    assert errors.confirms(found.hidden).tolist() == [True, False]
    assert errors.loss(question.spec).isfinite().all()


@dataclass(frozen=True)
class Unheard(LinearMap):
    """The identity, as an operation that came later."""

    def forward_linear(self, values: Values, x: Tensor) -> Tensor:
        return x

    forward_abs = adjoint = forward_linear


def test_an_operation_whose_roundings_nobody_counted_is_refused() -> None:
    question = Question(zoo.make("mlp"), zoo.IMAGE, 0.1)
    hidden, last = question.analyse().hidden, len(question.graph.ops) - 1
    strange = Unheard("strange", (last,), question.graph.ops[-1].shape, question.graph.ops[-1].shape)
    graph = replace(question.graph, ops=(*question.graph.ops, strange))
    with pytest.raises(UnsupportedOperation, match=r"'strange' \(Unheard\).* no rule for bounds of rounding errors"):
        round_errors(graph, question.double, question.box, assume(hidden))


def test_errors_can_be_picked_for_parts_of_a_box() -> None:
    question = Question(zoo.make("strided"), zoo.IMAGE, 0.05)
    errors, found = question.rounding()
    twice = torch.tensor([1, 1, 0])
    picked = errors[twice]
    assert torch.equal(picked.loss(question.spec[twice]), errors.loss(question.spec)[twice])
    assert all(torch.equal(picked.slack[i], s[twice]) for i, s in errors.slack.items())
    assert picked.confirms({i: z.map(lambda x: x[twice]) for i, z in found.hidden.items()}).all()
