"""Every activation against its definition: images, lines and where it is linear, on intervals of all kinds."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from certtrain.activations import Activation, Interval, ReLU, WindowMaximum
from certtrain.activations.clip import Clip
from certtrain.activations.leaky_relu import LeakyReLU
from certtrain.activations.registry import ACTIVATIONS
from certtrain.activations.sigmoid import Sigmoid
from certtrain.activations.tanh import Tanh

FUNCTIONS: dict[str, Activation] = {
    "relu": ReLU(),
    "leaky_relu": LeakyReLU(0.1),
    "leaky_relu_falling": LeakyReLU(-0.5),
    "leaky_relu_concave": LeakyReLU(2.0),
    "relu6": Clip(0.0, 6.0),
    "hardtanh": Clip(-1.0, 1.0),
    "clamp_below": Clip(-0.3, float("inf")),
    "clamp_above": Clip(-float("inf"), 0.7),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
}
RULES = ["adaptive", "zero", "one", "parallel"]


def test_every_activation_of_the_registry_is_tested() -> None:
    assert {type(function) for function in FUNCTIONS.values()} == set(ACTIVATIONS)


def intervals(dtype: torch.dtype) -> Interval:
    """[1, n]: random ones of many widths and places, points, ends at knots, and very long ones."""
    generator = torch.Generator().manual_seed(0)

    def draw(n: int, scale: float) -> Tensor:
        return scale * torch.randn((n, 2), generator=generator, dtype=torch.float64)

    ends = [draw(300, scale) for scale in (0.01, 0.3, 2.0, 10.0)]
    center = draw(200, 3.0)
    ends.append(center[:, :1] + torch.tensor([0.0, 1.0]) * 1e-3 * center[:, 1:].abs())
    ends.append(draw(50, 3.0)[:, :1].expand(-1, 2))
    knots = torch.tensor([-1.0, -0.3, 0.0, 0.7, 1.0, 6.0], dtype=torch.float64)
    ends += [torch.cartesian_prod(knots, knots), torch.tensor([[-80.0, 90.0], [-700.0, 1.0], [-2.0, 500.0]])]
    lower, upper = torch.cat([x.double() for x in ends]).sort(1).values.to(dtype).unbind(1)
    return Interval(lower[None], upper[None])


def samples(z: Interval) -> Tensor:
    """[points, n], both ends among them."""
    share = torch.linspace(0, 1, 101, dtype=z.lower.dtype)[:, None]
    points = z.lower + share * (z.upper - z.lower)
    knots = torch.tensor([[-1.0], [-0.3], [0.0], [0.7], [1.0], [6.0]], dtype=z.lower.dtype).expand(-1, points.shape[1])
    return torch.cat([points, knots]).clamp(z.lower, z.upper)


def exactly(function: Activation, x: Tensor) -> Tensor:
    """In float64, where `x` is a float32 number."""
    return function(x.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_images_hold_all_values(name: str, dtype: torch.dtype) -> None:
    z, function = intervals(dtype), FUNCTIONS[name]
    image, values = function.image(z), exactly(function, samples(z))
    slack = 4 * torch.finfo(dtype).eps * (1 + values.abs())
    assert (image.lower.double() <= values + slack).all()
    assert (image.upper.double() >= values - slack).all()
    # And no more than that: both ends are taken.
    torch.testing.assert_close(image.lower.double(), values.amin(0, keepdim=True), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(image.upper.double(), values.amax(0, keepdim=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [*RULES, "given"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_function_lies_between_its_lines(name: str, rule: str, dtype: torch.dtype) -> None:
    """Also at the level of rounding: the allowance is that of evaluating the line itself, not of its intercept."""
    z, function = intervals(dtype), FUNCTIONS[name]
    generator = torch.Generator().manual_seed(1)
    slopes = 1.4 * torch.rand(z.lower.shape, generator=generator, dtype=dtype) - 0.2 if rule == "given" else rule
    lines = function.lines(z, slopes)
    x = samples(z).double()
    value = function(x)
    lower = lines.lower_slope.double() * x
    if lines.lower_intercept is not None:
        lower = lower + lines.lower_intercept.double()
    upper = (lines.lower_slope.double() + lines.gap.double()) * x + lines.upper_intercept.double()
    slack = 4 * torch.finfo(dtype).eps * (1 + x.abs()) * max(1.0, abs(getattr(function, "negative_slope", 1.0)))
    assert (lower <= value + slack).all()
    assert (value <= upper + slack).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_lines_are_the_function_where_it_is_linear(name: str, rule: str) -> None:
    z, function = intervals(torch.float64), FUNCTIONS[name]
    lines, decided = function.lines(z, rule), ~function.undecided(z)
    assert decided.any()
    assert (lines.gap[decided] == 0).all()
    for x in (z.lower, z.upper):
        line = lines.lower_slope * x + lines.upper_intercept
        torch.testing.assert_close(line[decided], function(x)[decided], rtol=0, atol=1e-9)


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


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_lines_have_right_derivatives(name: str, rule: str) -> None:
    """Against a difference, where neither end is near a knot or a change of the rule."""
    generator = torch.Generator().manual_seed(4)
    lower = -2 * torch.rand((1, 60), generator=generator, dtype=torch.float64) - 0.05
    upper = 3 * torch.rand((1, 60), generator=generator, dtype=torch.float64) + 0.05
    function, step = FUNCTIONS[name], 1e-6

    for at in range(2):
        ends = [lower, upper]
        fixed = 0.3 * lower + 0.7 * upper

        def of(x: Tensor, at: int = at, ends: list[Tensor] = ends, fixed: Tensor = fixed) -> Tensor:
            moved = [x if i == at else end for i, end in enumerate(ends)]
            lines = function.lines(Interval(*moved), rule)
            low = lines.lower_slope * fixed + (0 if lines.lower_intercept is None else lines.lower_intercept)
            return torch.cat([low, (lines.lower_slope + lines.gap) * fixed + lines.upper_intercept])

        leaf = ends[at].clone().requires_grad_()
        weights = torch.rand((2, 60), generator=generator, dtype=torch.float64)
        (gradient,) = torch.autograd.grad((of(leaf) * weights).sum(), leaf)
        difference = (of(ends[at] + step) - of(ends[at] - step)) / (2 * step)
        smooth = ((of(ends[at] + step) - 2 * of(ends[at]) + of(ends[at] - step)).abs() < 1e-9).all(0)
        expected = (difference * weights).sum(0)
        assert smooth.double().mean() > 0.6
        torch.testing.assert_close(gradient[0][smooth], expected[smooth], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_that_are_none_stay_visible(name: str) -> None:
    nan = torch.tensor([[float("nan"), -1.0, float("nan")]])
    z = Interval(nan, torch.tensor([[1.0, float("nan"), float("nan")]]))
    function = FUNCTIONS[name]
    assert not function.undecided(z).any()
    lines = function.lines(z, "adaptive")
    assert torch.stack([lines.gap, lines.upper_intercept]).isnan().any(0).all()
    image = function.image(z)
    assert torch.stack([image.lower, image.upper]).isnan().any(0).all()


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
