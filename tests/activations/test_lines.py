"""Every activation against its definition: images, lines and where it is linear, on intervals of all kinds."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from certtrain.activations import Activation, Interval, Lines, ReLU, Slopes, WindowMaximum
from certtrain.activations.clip import Clip
from certtrain.activations.hardsigmoid import Hardsigmoid
from certtrain.activations.leaky_relu import LeakyReLU
from certtrain.activations.registry import ACTIVATIONS
from certtrain.activations.sigmoid import Sigmoid
from certtrain.activations.tanh import Tanh
from certtrain.testing import ACTIVATION_CHECKS, check_activation
from certtrain.testing.activations import RULES, intervals, samples

FUNCTIONS: dict[str, Activation] = {
    "relu": ReLU(),
    "leaky_relu": LeakyReLU(0.1),
    "leaky_relu_falling": LeakyReLU(-0.5),
    "leaky_relu_concave": LeakyReLU(2.0),
    "relu6": Clip(0.0, 6.0),
    "hardtanh": Clip(-1.0, 1.0),
    "clamp_below": Clip(-0.3, float("inf")),
    "clamp_above": Clip(-float("inf"), 0.7),
    "hardsigmoid": Hardsigmoid(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
}


def test_every_activation_of_the_registry_is_tested() -> None:
    assert {type(function) for function in FUNCTIONS.values()} == set(ACTIVATIONS)


@pytest.mark.parametrize("check", ACTIVATION_CHECKS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_activation(name: str, check: str) -> None:
    ACTIVATION_CHECKS[check](FUNCTIONS[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_other_line_of_a_fine_grid_encloses_less(name: str) -> None:
    """Adaptive lines have the least area: the height at the midpoint, against lines of every slope in steps."""
    z, function = intervals(torch.float64), FUNCTIONS[name]
    keep = (z.upper - z.lower > 1e-2)[0] & (z.upper - z.lower < 50)[0]
    z = Interval(z.lower[:, keep], z.upper[:, keep])
    lines, middle, x = function.lines(z, "adaptive"), z.center, samples(z)
    above = lines.upper_slope * middle + lines.upper_intercept
    below = lines.lower_slope * middle + (0 if lines.lower_intercept is None else lines.lower_intercept)
    width = z.upper - z.lower
    for slope in torch.linspace(-2.5, 2.5, 201, dtype=torch.float64):
        rest = function(x) - slope * x
        highest, lowest = (rest.amax(0) + slope * middle), (rest.amin(0) + slope * middle)
        # Sampling misses the true extremes by a little.
        assert (above <= highest + 1e-3 * width).all()
        assert (below >= lowest - 1e-3 * width).all()


# Windows of two by two pixels on a two by three image with a border of one: some candidates are padding.
INSIDE = ((False, True, True), (True, True, False))


def windows() -> WindowMaximum:
    return WindowMaximum(INSIDE, INSIDE)


@pytest.mark.parametrize("rule", [*RULES, "given"])
@pytest.mark.parametrize("spread", [0.0, 0.05, 1.0])
def test_a_maximum_lies_between_its_planes(rule: str, spread: float) -> None:
    function = windows()
    generator = torch.Generator().manual_seed(2)
    shape = (50, 2 * function.group, 3, 3)
    center = torch.randn(shape, generator=generator, dtype=torch.float64)
    radius = spread * torch.rand(shape, generator=generator, dtype=torch.float64)
    z = Interval(center - radius, center + radius)
    slopes = torch.rand(shape, generator=generator, dtype=torch.float64) if rule == "given" else rule
    lines, image = function.lines(z, slopes), function.image(z)
    decided = ~function.any_input(function.undecided(z))
    for i in range(200):
        share = torch.rand(shape, generator=generator, dtype=torch.float64)
        x = z.lower + (share.round() if i % 2 else share) * (z.upper - z.lower)
        x = x.clamp(z.lower, z.upper)
        value = function(x)
        assert ((image.lower <= value) & (value <= image.upper)).all()
        low = lines.lower_slope * x + (0 if lines.lower_intercept is None else lines.lower_intercept)
        lower = function.collect(low)
        upper = function.collect(lines.upper_slope * x + lines.upper_intercept)
        assert (lower <= value + 1e-12).all()
        assert (value <= upper + 1e-12).all()
        torch.testing.assert_close(upper[decided], value[decided], rtol=0, atol=1e-12)
        torch.testing.assert_close(lower[decided], value[decided], rtol=0, atol=1e-12)
    assert decided.double().mean() > (0.9 if spread < 0.1 else 0.1)


def test_rounding_that_crosses_bounds_does_no_harm() -> None:
    """Intersected bounds may lie an ulp apart in the wrong order: lines hold at both ends all the same."""
    function = WindowMaximum(((True,), (True,)), ((True,),))
    upper = torch.tensor([[[-5.0 - 1e-14]], [[-9.0]]], dtype=torch.float64)
    z = Interval(torch.tensor([[[-5.0]], [[-9.5]]], dtype=torch.float64), upper)
    part = function.linear_part(z)
    value = function.collect(part.lower_slope * upper + part.upper_intercept)
    assert float(value) == pytest.approx(-5.0, abs=1e-12)
    for name, unary in FUNCTIONS.items():
        ends = torch.tensor([[0.4, -0.4, 0.0, 3.0]], dtype=torch.float64)
        lines = unary.lines(Interval(ends + 1e-15, ends - 1e-15), "adaptive")
        height = lines.upper_slope * ends + lines.upper_intercept
        torch.testing.assert_close(height, unary(ends), rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_on_the_narrowest_intervals_are_slopes_of_the_function(name: str, rule: str) -> None:
    """Not quotients of rounding errors: rows are multiplied with them."""
    lower = torch.tensor([[0.0, -3e-16, 1e-20, -3.0, 0.3, -1.0]], dtype=torch.float64)
    for width in (1e-18, 1e-16, 1e-15):
        lines = FUNCTIONS[name].lines(Interval(lower, lower + width), rule)
        assert lines.lower_slope.abs().max() <= 2.0
        assert lines.upper_slope.abs().max() <= 2.0


def test_padding_never_wins() -> None:
    function = windows()
    negative = -1 - torch.rand((1, function.group, 3, 3))
    outside = torch.where(torch.tensor(INSIDE).T[None, None, :, :1] | True, negative, 0.0)
    assert (function(outside) < 0).all()


def builds(make: Callable[[], Activation]) -> bool:
    try:
        make()
    except ValueError:
        return False
    return True


def test_an_empty_range_is_refused() -> None:
    assert not builds(lambda: Clip(1.0, 0.0))
    assert not builds(lambda: Clip(-float("inf"), float("inf")))
    assert builds(lambda: Clip(0.0, 1.0))


class Careless(ReLU):
    """A lower line that is one unit in the fourth place too high."""

    def lines(self, z: Interval, slopes: Slopes) -> Lines:
        lines = super().lines(z, slopes)
        return replace(lines, lower_intercept=torch.full_like(lines.gap, 1e-4))


def test_a_line_that_crosses_is_found() -> None:
    with pytest.raises(AssertionError, match="the lower line crosses the function"):
        check_activation(Careless())
