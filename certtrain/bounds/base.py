"""What every relaxation has in common: boxes go in, sound bounds come out."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from certtrain.bounds.checks import check_box, check_inputs, check_query, check_radius
from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph, Params
from certtrain.precision import full_float32

Sides = Literal["both", "lower"]


@dataclass(frozen=True)
class Box:
    """All inputs between two images, element by element; zero-width pixels are legal.

    Attributes:
        lower: [batch, *input_shape].
        upper: [batch, *input_shape].

    Raises:
        ConfigError: If shapes, types or devices differ, an end is not finite, or lower is above upper.
    """

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        check_box(self.lower, self.upper)

    @staticmethod
    def linf(
        inputs: Tensor | ArrayLike,
        eps: float | Tensor | ArrayLike,
        clip: tuple[float, float] | None = (0.0, 1.0),
    ) -> Box:
        """The L-infinity ball of radius eps (in the unit of the inputs), cut to the range of legal pixels.

        Args:
            inputs: [batch, *input_shape].
            eps: A number, or numbers that broadcast to the inputs, [batch, 1, ...] for one of each.
            clip: Range of legal pixels; None if there is none.

        Raises:
            ConfigError: If eps is negative or not a number, or an input lies outside `clip`: its box would not
                contain it.
        """
        inputs = check_inputs(inputs, clip)
        eps = check_radius(eps, inputs)
        lower, upper = inputs - eps, inputs + eps
        return Box(lower, upper) if clip is None else Box(lower.clamp(*clip), upper.clamp(*clip))

    @property
    def center(self) -> Tensor:
        """Midpoint; exactly the input where the width is zero."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return (self.upper - self.lower) / 2

    def to(self, dtype: torch.dtype) -> Box:
        """The same box in another floating-point type."""
        return Box(self.lower.to(dtype), self.upper.to(dtype))

    def __getitem__(self, images: slice | Tensor) -> Box:
        return Box(self.lower[images], self.upper[images])

    def __len__(self) -> int:
        return self.lower.shape[0]


@dataclass(frozen=True)
class Bounds:
    """Sound bounds of linear forms in the network's outputs.

    Attributes:
        lower: [batch, rows].
        upper: [batch, rows], or None where only lower bounds were asked for.
    """

    lower: Float[Tensor, "batch rows"]
    upper: Float[Tensor, "batch rows"] | None


class Relaxation(ABC):
    """A sound over-approximation of a network on a box.

    Implementations are frozen dataclasses: their fields are their options, and they keep no state, so that one function
    serves evaluation, autograd and a population of parameters under `torch.func.vmap`.

    Attributes:
        optimises: Whether a part of the bound is chosen by iterations: derivatives are those at what was chosen.
    """

    optimises: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Puts checks and full precision around every implementation of `bound` and `analyse`: none can do without."""
        super().__init_subclass__(**options)
        for name in ("bound", "analyse"):
            if name in vars(cls):
                setattr(cls, name, _checked(getattr(cls, name)))

    @abstractmethod
    def bound(
        self,
        graph: Graph,
        params: Params,
        box: Box,
        spec: Float[Tensor, "batch rows outputs"] | None = None,
        sides: Sides = "both",
    ) -> Bounds:
        """Bounds `spec @ network(x)` over all x in the box.

        Args:
            graph: The traced network.
            params: Parameter name -> tensor; every perturbation, copy or dtype is the caller's choice.
            box: The inputs to cover.
            spec: Rows of linear forms per image, merged into the last affine layer; None bounds the outputs themselves.
            sides: "lower" allows the relaxation to skip upper bounds.

        Raises:
            ConfigError: If box, specification or parameters do not fit the network, or each other.
        """


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(
        self: Relaxation,
        graph: Any,
        params: Any,
        box: Any,
        spec: Any = None,
        sides: Any = "both",
        *more: Any,
        **named: Any,
    ) -> Any:
        if not isinstance(box, Box):
            raise ConfigError(f"box must be a certtrain.Box, got {type(box).__name__}")
        check_query(graph, params, box.lower, spec, sides)
        with full_float32(box.lower.device):
            return method(self, graph, params, box, spec, sides, *more, **named)

    return checked


def unchecked(method: Callable[..., Any]) -> Callable[..., Any]:
    """An implementation as it is, for who is inside a checked one already."""
    return getattr(method, "__wrapped__", method)
