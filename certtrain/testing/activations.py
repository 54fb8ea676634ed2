"""What holds for every element-wise activation, on intervals of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import torch
from torch import Tensor

from certtrain.activations import Activation, Interval, Lines, SlopeRule, Slopes

DTYPES = (torch.float32, torch.float64)
RULES: tuple[SlopeRule, ...] = ("adaptive", "zero", "one", "parallel")
# Where functions are likely to change their slope: ends of intervals fall there, too.
KNOTS = (-1.0, -0.3, 0.0, 0.7, 1.0, 6.0)


def intervals(dtype: torch.dtype) -> Interval:
    """[1, n]: random ones of many widths and places, points, ends at knots, and very long ones."""
    generator = torch.Generator().manual_seed(0)

    def draw(n: int, scale: float) -> Tensor:
        return scale * torch.randn((n, 2), generator=generator, dtype=torch.float64)

    ends = [draw(300, scale) for scale in (0.01, 0.3, 2.0, 10.0)]
    center = draw(200, 3.0)
    ends.append(center[:, :1] + torch.tensor([0.0, 1.0]) * 1e-3 * center[:, 1:].abs())
    ends.append(draw(50, 3.0)[:, :1].expand(-1, 2))
    knots = torch.tensor(KNOTS, dtype=torch.float64)
    ends += [torch.cartesian_prod(knots, knots), torch.tensor([[-80.0, 90.0], [-700.0, 1.0], [-2.0, 500.0]])]
    lower, upper = torch.cat([x.double() for x in ends]).sort(1).values.to(dtype).unbind(1)
    return Interval(lower[None], upper[None])


def samples(z: Interval) -> Tensor:
    """[points, n], both ends among them."""
    share = torch.linspace(0, 1, 101, dtype=z.lower.dtype)[:, None]
    points = z.lower + share * (z.upper - z.lower)
    knots = torch.tensor(KNOTS, dtype=z.lower.dtype)[:, None].expand(-1, points.shape[1])
    return torch.cat([points, knots]).clamp(z.lower, z.upper)


def _below(lines: Lines, x: Tensor) -> Tensor:
    """The lower line at points, in their precision."""
    value = lines.lower_slope.to(x.dtype) * x
    return value if lines.lower_intercept is None else value + lines.lower_intercept.to(x.dtype)


def _above(lines: Lines, x: Tensor) -> Tensor:
    return (lines.lower_slope.to(x.dtype) + lines.gap.to(x.dtype)) * x + lines.upper_intercept.to(x.dtype)


def _steepness(function: Activation) -> float:
    """About the largest slope, at least one: what errors of its argument are multiplied with."""
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    return max(1.0, float((function(x).diff() / x.diff()).abs().max()))


def _name(slopes: Slopes) -> str:
    return slopes if isinstance(slopes, str) else "given"


def images_hold_all_values_and_no_more(function: Activation) -> None:
    """Both ends of an image are taken, up to the fineness of samples."""
    for dtype in DTYPES:
        z = intervals(dtype)
        image, values = function.image(z), function(samples(z).double())
        slack = 4 * torch.finfo(dtype).eps * (1 + values.abs())
        assert (image.lower.double() <= values + slack).all(), "a value lies below its image"
        assert (image.upper.double() >= values - slack).all(), "a value lies above its image"
        torch.testing.assert_close(image.lower.double(), values.amin(0, keepdim=True), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(image.upper.double(), values.amax(0, keepdim=True), rtol=1e-4, atol=1e-4)


def the_function_lies_between_its_lines(function: Activation) -> None:
    """For all rules and for any given slopes, in both precisions.

    The allowance is what evaluating a line of that precision costs, a few units in the last place of its terms.
    """
    generator = torch.Generator().manual_seed(1)
    for dtype, rule in product(DTYPES, (*RULES, "given")):
        z = intervals(dtype)
        given = 1.4 * torch.rand(z.lower.shape, generator=generator, dtype=dtype) - 0.2
        lines = function.lines(z, given if rule == "given" else rule)  # type: ignore[arg-type]
        x = samples(z).double()
        value, slack = function(x), 4 * torch.finfo(dtype).eps * (1 + x.abs()) * _steepness(function)
        assert (_below(lines, x) <= value + slack).all(), f"{rule}, {dtype}: the lower line crosses the function"
        assert (value <= _above(lines, x) + slack).all(), f"{rule}, {dtype}: the upper line crosses the function"


def lines_are_the_function_where_it_is_linear(function: Activation) -> None:
    """Bounds of neurons that are decided are not made tighter, so nothing may depend on them."""
    z = intervals(torch.float64)
    decided = ~function.undecided(z)
    assert decided.any(), "on points every function is linear"
    for rule in RULES:
        lines = function.lines(z, rule)
        assert (lines.gap[decided] == 0).all(), f"{rule}: a gap between equal lines"
        for x in (z.lower, z.upper):
            torch.testing.assert_close(_above(lines, x)[decided], function(x)[decided], rtol=0, atol=1e-9)
            torch.testing.assert_close(_below(lines, x)[decided], function(x)[decided], rtol=0, atol=1e-9)
    part, linear = function.linear_part(z), decided
    assert (part.gap == 0).all()
    torch.testing.assert_close(_below(part, z.upper)[linear], function(z.upper)[linear], rtol=0, atol=1e-9)
    assert (part.lower_slope[~linear] == 0).all()


def lines_have_right_derivatives(function: Activation) -> None:
    """Against a difference, where neither end is near a knot or a change of the rule."""
    generator = torch.Generator().manual_seed(4)
    lower = -2 * torch.rand((1, 60), generator=generator, dtype=torch.float64) - 0.05
    upper = 3 * torch.rand((1, 60), generator=generator, dtype=torch.float64) + 0.05
    weights, at = torch.rand((2, 60), generator=generator, dtype=torch.float64), 0.3 * lower + 0.7 * upper
    for rule, end in product(RULES, range(2)):
        slopes: Slopes = rule

        def heights(x: Tensor, end: int = end, slopes: Slopes = slopes) -> Tensor:
            lines = function.lines(Interval(*((x, upper) if end == 0 else (lower, x))), slopes)
            return torch.cat([_below(lines, at), _above(lines, at)])

        here, step = (lower, upper)[end], 1e-6
        leaf = here.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            (heights(leaf) * weights).sum(), leaf, allow_unused=True, materialize_grads=True
        )
        ahead, behind = heights(here + step), heights(here - step)
        smooth = ((ahead - 2 * heights(here) + behind).abs() < 1e-9).all(0)
        assert smooth.double().mean() > 0.6, f"{rule}: lines jump nearly everywhere"
        expected = ((ahead - behind) / (2 * step) * weights).sum(0)
        torch.testing.assert_close(gradient[0][smooth], expected[smooth], rtol=1e-3, atol=1e-4)


def lines_that_are_zero_stay_zero(function: Activation) -> None:
    """Compiled derivatives pass over neurons that are blocked: nothing of their lines may have a derivative."""
    z = intervals(torch.float64)
    knots = torch.tensor(KNOTS, dtype=torch.float64)
    smooth = ~(torch.isin(z.lower, knots) | torch.isin(z.upper, knots))
    leaves = [x.clone().requires_grad_() for x in (z.lower, z.upper, torch.zeros_like(z.lower))]
    lower, upper, given = leaves
    rules: tuple[Slopes, ...] = (*RULES, given)
    for slopes in rules:
        lines = function.lines(Interval(lower, upper), slopes)
        zero = torch.stack([x == 0 for x in lines.tensors]).all(0) & smooth
        for part in lines.tensors:
            if part.requires_grad:
                found = torch.autograd.grad(
                    part.sum(), leaves, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                assert all((x[zero] == 0).all() for x in found), f"{_name(slopes)}: zero lines have a derivative"


def numbers_that_are_none_stay_visible(function: Activation) -> None:
    """A NaN at either end reaches the lines and the image."""
    nan = float("nan")
    z = Interval(torch.tensor([[nan, -1.0, nan]]), torch.tensor([[1.0, nan, nan]]))
    assert not function.undecided(z).any()
    lines, image = function.lines(z, "adaptive"), function.image(z)
    assert torch.stack([lines.gap, lines.upper_intercept]).isnan().any(0).all()
    assert torch.stack([image.lower, image.upper]).isnan().any(0).all()


def lines_are_no_larger_than_is_claimed(function: Activation) -> None:
    """What bounds of rounding errors rest on: |slope| · |z| + |intercept|, for z as large as the ends and larger."""
    z = intervals(torch.float64)
    generator = torch.Generator().manual_seed(2)
    given = 6 * torch.rand(z.lower.shape, generator=generator, dtype=torch.float64) - 3
    for rule, factor in product((*RULES, "given"), (1.0, 1.5)):
        slopes = given if rule == "given" else None
        lines = function.lines(z, rule if slopes is None else slopes)  # type: ignore[arg-type]
        size = factor * torch.maximum(z.lower.abs(), z.upper.abs())
        claimed = function.lines_size(size, slopes) * (1 + 1e-12) + 1e-12
        none = torch.zeros_like(lines.upper_intercept)
        low = none if lines.lower_intercept is None else lines.lower_intercept
        for slope, intercept in ((lines.lower_slope, low), (lines.upper_slope, lines.upper_intercept)):
            assert (slope.abs() * size + intercept.abs() <= claimed).all(), f"{rule}: a line is larger than claimed"


def evaluation_keeps_to_its_claimed_error(function: Activation) -> None:
    """In float32, against float64."""
    z = intervals(torch.float32)
    x = samples(z)
    error = (function(x).double() - function(x.double())).abs()
    claimed = function.evaluation_error(z.map(torch.Tensor.double), 2.0**-24)
    assert (error <= claimed + 2.0**-125).all(), "float32 is further off than claimed"


ActivationCheck = Callable[[Activation], None]
ACTIVATION_CHECKS: Mapping[str, ActivationCheck] = {
    check.__name__: check
    for check in (
        images_hold_all_values_and_no_more,
        the_function_lies_between_its_lines,
        lines_are_the_function_where_it_is_linear,
        lines_have_right_derivatives,
        lines_that_are_zero_stay_zero,
        numbers_that_are_none_stay_visible,
        lines_are_no_larger_than_is_claimed,
        evaluation_keeps_to_its_claimed_error,
    )
}


def check_activation(function: Activation) -> None:
    """Runs every check on an element-wise activation.

    Raises:
        AssertionError: At the first one that fails.
    """
    for check in ACTIVATION_CHECKS.values():
        check(function)
