"""A question about a network, as data: regions of inputs, and the outputs that would be unsafe there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import index
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.arrays import as_tensor
from certtrain.bounds import Box
from certtrain.certify.properties.contradiction import contradicts
from certtrain.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Conjunction:
    """Outputs y with `coefficients @ y <= constants` in every row; without rows, all outputs.

    Attributes:
        coefficients: float64, [rows, outputs].
        constants: float64, [rows].

    Raises:
        ConfigError: If shapes do not fit or a number is not finite.
    """

    coefficients: Float[Tensor, "rows outputs"]
    constants: Float[Tensor, " rows"]

    def __post_init__(self) -> None:
        coefficients = _numbers(self.coefficients, "coefficients")
        constants = _numbers(self.constants, "constants")
        if coefficients.dim() != 2 or constants.shape != coefficients.shape[:1] or coefficients.shape[1] < 1:
            raise ConfigError(
                "a conjunction needs coefficients [rows, outputs] and constants [rows], got "
                f"{list(coefficients.shape)} and {list(constants.shape)}"
            )
        object.__setattr__(self, "coefficients", coefficients)
        object.__setattr__(self, "constants", constants)

    @property
    def num_outputs(self) -> int:
        """Length of the output vectors that it speaks of."""
        return self.coefficients.shape[1]

    @property
    def contradictory(self) -> bool:
        """Whether there is a proof, in exact arithmetic, that no output fulfils all rows."""
        return contradicts(self.coefficients, self.constants)

    def holds(self, y: Float[Tensor, " outputs"]) -> bool:
        """Whether an output, in float64, fulfils all rows."""
        return bool((self.coefficients @ y <= self.constants).all())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Conjunction):
            return NotImplemented
        return torch.equal(self.coefficients, other.coefficients) and torch.equal(self.constants, other.constants)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Region:
    """Some inputs, and the outputs that are unsafe for them.

    Attributes:
        box: float64, with a batch axis of one: [1, *input_shape].
        unsafe: An output is unsafe if one of these holds.

    Raises:
        ConfigError: If the box is of several inputs, or the conjunctions are of different networks.
    """

    box: Box
    unsafe: tuple[Conjunction, ...]

    def __post_init__(self) -> None:
        unsafe = tuple(self.unsafe)
        if not isinstance(self.box, Box) or len(self.box) != 1:
            raise ConfigError("a region needs a certtrain.Box of one input, [1, *input_shape]")
        if not all(isinstance(one, Conjunction) for one in unsafe):
            raise ConfigError("a region's unsafe outputs must be certtrain.certify.properties.Conjunction objects")
        if len({one.num_outputs for one in unsafe}) > 1:
            raise ConfigError(f"a region's conjunctions have {_counts(unsafe)} outputs: all must speak of one network")
        ends = (end.detach().to("cpu", torch.float64) for end in (self.box.lower, self.box.upper))
        object.__setattr__(self, "box", Box(*ends))
        object.__setattr__(self, "unsafe", unsafe)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Region):
            return NotImplemented
        ends = ((self.box.lower, other.box.lower), (self.box.upper, other.box.upper))
        return all(torch.equal(a, b) for a, b in ends) and self.unsafe == other.unsafe

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Property:
    """The question whether a network is safe: whether no input of a region has an output that is unsafe there.

    A disjunction of conjunctions, over boxes of inputs and linear constraints of outputs: what VNN-LIB files state. An
    input for which it is violated is a counterexample ("sat"); if there is none, the network is safe ("unsat"). All
    constraints are closed: an output on the boundary of an unsafe set is unsafe.

    Attributes:
        regions: Without any, nothing is unsafe.

    Raises:
        ConfigError: If regions differ in the shape of inputs or the number of outputs.
    """

    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        regions = tuple(self.regions)
        if not all(isinstance(region, Region) for region in regions):
            raise ConfigError("a property is made of certtrain.certify.properties.Region objects")
        if len({tuple(region.box.lower.shape) for region in regions}) > 1:
            raise ConfigError("a property's regions must have inputs of one shape")
        conjunctions = [one for region in regions for one in region.unsafe]
        if len({one.num_outputs for one in conjunctions}) > 1:
            raise ConfigError(f"a property's regions have {_counts(conjunctions)} outputs: they speak of one network")
        object.__setattr__(self, "regions", regions)

    @staticmethod
    def robust(
        image: Any, label: int, eps: Any, num_classes: int, clip: tuple[float, float] | None = (0.0, 1.0)
    ) -> Property:
        """That a label's output is the largest one on the L-infinity ball around an image.

        Args:
            image: [*input_shape], without a batch axis, in pixel units.
            label: Its class.
            eps: Radius, a number or numbers that broadcast to the image.
            num_classes: Outputs of the network.
            clip: Range of legal pixels; None if there is none.

        Raises:
            ConfigError: If the label is no class, or see `Box.linf`.
        """
        target, classes = _whole(label, "label"), _whole(num_classes, "num_classes")
        if classes < 2:
            raise ConfigError(f"num_classes must be at least 2, got {classes}")
        if not 0 <= target < classes:
            raise ConfigError(f"label must be a class from 0 to {classes - 1}, got {target}")
        image, eps = _numbers(image, "image"), as_tensor(eps, "eps").to(torch.float64)
        box = Box.linf(image[None], eps[None] if eps.dim() else eps, clip)
        margins = torch.eye(classes, dtype=torch.float64)[target] - torch.eye(classes, dtype=torch.float64)
        wrong = [margins[[k]] for k in range(classes) if k != target]
        zero = torch.zeros(1, dtype=torch.float64)
        return Property((Region(box, tuple(Conjunction(row, zero) for row in wrong)),))

    @staticmethod
    def from_constraints(lower: Any, upper: Any, unsafe: Iterable[Conjunction | tuple[Any, Any]]) -> Property:
        """One box of inputs, and the outputs that are unsafe on it.

        Args:
            lower: [*input_shape].
            upper: [*input_shape].
            unsafe: Conjunctions, or pairs (coefficients [rows, outputs], constants [rows]); an output is unsafe if
                `coefficients @ y <= constants` in all rows of one of them.

        Raises:
            ConfigError: If shapes do not fit, or a number is not finite.
        """
        box = Box(_numbers(lower, "lower")[None], _numbers(upper, "upper")[None])
        try:
            pairs = [one if isinstance(one, Conjunction) else tuple(one) for one in unsafe]
        except TypeError:
            pairs = [()]
        if any(isinstance(pair, tuple) and len(pair) != 2 for pair in pairs):
            raise ConfigError("unsafe must be a list of pairs (coefficients, constants)")
        return Property((Region(box, tuple(_conjunction(pair) for pair in pairs)),))

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one input; None without regions."""
        return tuple(self.regions[0].box.lower.shape[1:]) if self.regions else None

    @property
    def num_outputs(self) -> int | None:
        """Length of the output vector; None if no output is unsafe."""
        return next((one.num_outputs for region in self.regions for one in region.unsafe), None)

    def without_contradictions(self) -> Property:
        """The same question without what cannot be: conjunctions that contradict themselves, regions left with none.

        If no region is left, the property contradicts itself: no network violates it.
        """
        kept = [Region(r.box, tuple(one for one in r.unsafe if not one.contradictory)) for r in self.regions]
        return Property(tuple(region for region in kept if region.unsafe))

    def violated(self, x: Any, y: Any) -> bool:
        """Whether an input and its output, both taken to float64, are a counterexample.

        Args:
            x: [*input_shape], also with a batch axis of one, or flat.
            y: [outputs], also with a batch axis of one.

        Raises:
            ConfigError: If their sizes are others.
        """
        found, out = (as_tensor(v, n).detach().to("cpu", torch.float64).flatten() for v, n in ((x, "x"), (y, "y")))
        for region in self.regions:
            lower, upper = (end.flatten() for end in (region.box.lower, region.box.upper))
            if found.shape != lower.shape:
                raise ConfigError(f"x must have {len(lower)} elements, as the property's inputs have, got {len(found)}")
            if region.unsafe and len(out) != region.unsafe[0].num_outputs:
                raise ConfigError(f"y must have {region.unsafe[0].num_outputs} elements, got {len(out)}")
            inside = bool(((lower <= found) & (found <= upper)).all())
            if inside and bool(out.isfinite().all()) and any(one.holds(out) for one in region.unsafe):
                return True
        return False


def _numbers(value: Any, name: str) -> Tensor:
    """Finite numbers in float64, on the CPU, that nobody else changes."""
    found = as_tensor(value, name).detach().to(device="cpu", dtype=torch.float64, copy=True)
    if not bool(found.isfinite().all()):
        raise ConfigError(f"{name} must be finite, got NaN or infinity among them")
    return found


def _conjunction(pair: Any) -> Conjunction:
    if isinstance(pair, Conjunction):
        return pair
    return Conjunction(_numbers(pair[0], "coefficients"), _numbers(pair[1], "constants"))


def _counts(conjunctions: Iterable[Conjunction]) -> str:
    return " and ".join(str(n) for n in sorted({one.num_outputs for one in conjunctions}))


def _whole(value: Any, name: str) -> int:
    try:
        return index(value)
    except TypeError as error:
        raise ConfigError(f"{name} must be a whole number, got {value!r}") from error
