"""What an activation is to bounds: a function, its extremes on an interval, and two lines between which it lies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from certtrain.activations.interval import Interval

SlopeRule = Literal["adaptive", "zero", "one", "parallel"]
# How slopes are chosen: by a rule, or lower slopes that are given (alpha), [batch, *shape].
Slopes = SlopeRule | Tensor
# Units in the last place by which a library's function is assumed to be off at most.
ULPS = 4


@dataclass(frozen=True)
class Lines:
    """Lines around an activation on intervals of its inputs z, each tensor [batch, *shape of z].

    lower_slope · z + lower_intercept <= f(z) <= (lower_slope + gap) · z + upper_intercept, summed over the inputs of
    one output where an activation has several. Where all tensors are zero, none may depend on z or on given slopes to
    first order: such neurons are blocked, and derivatives pass over them.

    Attributes:
        lower_slope: Of the lower line.
        gap: Upper slope minus lower slope: what following both lines takes; zero where the two are parallel.
        upper_intercept: Of the upper line.
        lower_intercept: Of the lower line; None where all are zero.
    """

    lower_slope: Tensor
    gap: Tensor
    upper_intercept: Tensor
    lower_intercept: Tensor | None = None

    @staticmethod
    def between(lower_slope: Tensor, lower_intercept: Tensor, upper_slope: Tensor, upper_intercept: Tensor) -> Lines:
        """From both lines."""
        return Lines(lower_slope, upper_slope - lower_slope, upper_intercept, lower_intercept)

    @property
    def upper_slope(self) -> Tensor:
        """Of the upper line."""
        return self.lower_slope + self.gap

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that there are, in the order of the fields."""
        own = (self.lower_slope, self.gap, self.upper_intercept)
        return own if self.lower_intercept is None else (*own, self.lower_intercept)

    def map(self, function: Callable[[Tensor], Tensor]) -> Lines:
        """The same function of all of them."""
        return Lines(*(function(x) for x in self.tensors))

    @property
    def middle_intercept(self) -> Tensor:
        """Halfway between the intercepts."""
        both = self.upper_intercept if self.lower_intercept is None else self.upper_intercept + self.lower_intercept
        return both / 2


class Activation(ABC):
    """A nonlinear function, the same for all elements of a layer; frozen, its fields are its parameters.

    By default it is element-wise and never decreases. A new one is a file with such a class, and a line in `registry`:
    `modules` and `functions` say what of torch it stands for, and every relaxation, verifier and test knows it then.

    Attributes:
        modules: Class of a module -> how the activation is made from one.
        functions: Function, or name of a tensor's method -> how the activation is made from its further arguments.
    """

    modules: ClassVar[Mapping[type[nn.Module], Callable[[Any], Activation]]] = {}
    functions: ClassVar[Mapping[Any, Callable[..., Activation]]] = {}

    @property
    def element_wise(self) -> bool:
        """Whether it is given each element by itself, so that the shape of a layer does not matter."""
        return True

    @property
    def group(self) -> int:
        """Inputs of one output: so many consecutive channels."""
        return 1

    def collect(self, x: Tensor) -> Tensor:
        """Sums over the inputs of every output: [*lead, *shape of z] -> [*lead, *shape]."""
        return x

    def any_input(self, mask: Tensor) -> Tensor:
        """Whether something holds for any input of an output: [*lead, *shape of z] -> [*lead, *shape]."""
        return mask

    def for_inputs(self, x: Tensor) -> Tensor:
        """What stands at an output, at each of its inputs: [*lead, *shape] -> [*lead, *shape of z]."""
        return x

    def for_first_input(self, x: Tensor) -> Tensor:
        """What stands at an output, at one of its inputs; zero at the others: `collect` undoes it."""
        return x

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """Its values: [*lead, *shape of z] -> [*lead, *shape]."""

    def image(self, z: Interval) -> Interval:
        """The smallest intervals that hold its values."""
        return z.map(self)

    def evaluation_error(self, z: Interval, unit: float) -> Tensor:
        """How far an evaluation of it may be from its exact value on intervals, [batch, *shape] or broadcast to it.

        By default `ULPS` units in the last place of its largest value there: an assumption about the library.

        Args:
            z: Bounds of its inputs.
            unit: Unit roundoff of the arithmetic, half a unit in the last place of one.
        """
        image = self.image(z)
        return 2 * ULPS * unit * torch.maximum(image.lower.abs(), image.upper.abs())

    @abstractmethod
    def lines_size(self, size: Tensor, slopes: Tensor | None = None) -> Tensor:
        """Bound of |slope| · |z| + |intercept|, summed over the inputs of one output, of all lines that `lines` makes.

        Args:
            size: Bound of |z|, and of the ends of its intervals, [*lead, *shape of z].
            slopes: Lower slopes that are chosen, of any shape; None where a rule chooses them.
        """

    @abstractmethod
    def undecided(self, z: Interval) -> Tensor:
        """Where it is not linear on the interval: only there tighter bounds of z can change the lines.

        False where a bound is NaN, [batch, *shape of z].
        """

    @abstractmethod
    def lines(self, z: Interval, slopes: Slopes) -> Lines:
        """Lines for inputs in intervals; where it is linear, both are the function itself.

        Args:
            z: Bounds of its inputs (pre-activation bounds).
            slopes: A rule: "adaptive", the lines of least area; "zero" or "one", a lower line of that slope;
                "parallel", two lines of the same slope. Or lower slopes.
        """

    def free(self, z: Interval) -> Tensor | None:
        """Where every lower line through the origin with a slope between 0 and 1 is sound, and none is best.

        None where an activation has no such neurons, whatever the interval.
        """
        return None

    def linear_part(self, z: Interval) -> Lines:
        """The function itself where it is linear on the interval, zero where it is not: lines without a gap."""
        exact = self.lines(z, "zero")
        ends = self.for_inputs(self.any_input(self.undecided(z)))
        return replace(exact, gap=torch.zeros_like(exact.gap)).map(lambda x: torch.where(ends, 0.0, x))


class Unary(Activation):
    """An element-wise function that finds the offset of a line from its slope: sound lines for any slope."""

    @abstractmethod
    def offsets(self, z: Interval, slope: Tensor) -> Interval:
        """The smallest and the largest value of f(z) - slope · z on an interval."""

    @abstractmethod
    def upper_hull(self, z: Interval) -> Tensor:
        """Slope at the midpoint of the smallest concave function above: of the upper line of least area."""

    @abstractmethod
    def lower_hull(self, z: Interval) -> Tensor:
        """Slope at the midpoint of the largest convex function below: of the lower line of least area."""

    @abstractmethod
    def derivative(self, z: Tensor) -> Tensor:
        """f'(z)."""

    @property
    @abstractmethod
    def slope_range(self) -> tuple[float, float]:
        """The smallest and the largest slope of the function: no chord is outside."""

    def lines_size(self, size: Tensor, slopes: Tensor | None = None) -> Tensor:
        """See `Activation`: a line of slope s touches f at some t: its intercept is f(t) - s · t."""
        steepest = size.new_tensor(max(1.0, *(abs(s) for s in self.slope_range)))
        if slopes is not None:
            steepest = torch.maximum(steepest, slopes.abs().amax())
        return 3 * steepest * size + self(torch.zeros_like(size)).abs()

    def chord(self, z: Interval) -> Tensor:
        """(f(u) - f(l)) / (u - l), the derivative where u = l."""
        width = z.upper - z.lower
        flat = width == 0
        rise = self(z.upper) - self(z.lower)
        # A width of one where it is zero: a NaN in a branch that `where` discards would still reach the gradient. On
        # intervals of a few units in the last place the quotient is noise, which rows would be multiplied with.
        return torch.where(flat, self.derivative(z.lower), rise / torch.where(flat, 1.0, width)).clamp(
            *self.slope_range
        )

    def lines(self, z: Interval, slopes: Slopes) -> Lines:
        """See `Activation.lines`."""
        if isinstance(slopes, str) and slopes == "parallel":
            slope = torch.where(self.undecided(z), self.chord(z), self.upper_hull(z))
            offsets = self.offsets(z, slope)
            return Lines(slope, torch.zeros_like(slope), offsets.upper, offsets.lower)
        upper = self.upper_hull(z)
        # Where it is linear, one slope for both: rounding must not tell them apart.
        lower = torch.where(self.undecided(z), self._lower(z, slopes), upper)
        return Lines.between(lower, self.offsets(z, lower).lower, upper, self.offsets(z, upper).upper)

    def _lower(self, z: Interval, slopes: Slopes) -> Tensor:
        if isinstance(slopes, Tensor):
            return slopes
        if slopes == "adaptive":
            return self.lower_hull(z)
        return torch.full_like(z.lower, 1.0 if slopes == "one" else 0.0)
