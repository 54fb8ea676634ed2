"""What every relaxation has in common: boxes go in, sound bounds come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.networks.graph import Graph, Params

Sides = Literal["both", "lower"]


@dataclass(frozen=True)
class Box:
    """All inputs between two images, element by element; zero-width pixels are legal.

    Attributes:
        lower: [batch, *input_shape].
        upper: [batch, *input_shape].
    """

    lower: Float[Tensor, "batch *shape"]
    upper: Float[Tensor, "batch *shape"]

    @staticmethod
    def linf(
        inputs: Float[Tensor, "batch *shape"],
        eps: float | Tensor,
        clip: tuple[float, float] | None = (0.0, 1.0),
    ) -> Box:
        """The L-infinity ball of radius eps (in the unit of the inputs), cut to the range of legal pixels.

        Raises:
            ConfigError: If eps is negative or not a number, or an input lies outside `clip`: its box would not
                contain it.
        """
        if isinstance(eps, (int, float)) and not eps >= 0:
            raise ConfigError(f"eps must be a number >= 0, got {eps}")
        if clip is not None and not ((inputs >= clip[0]) & (inputs <= clip[1])).all():
            raise ConfigError(f"inputs must lie in clip={clip}: normalise in the network, or pass clip=None")
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
    """A sound over-approximation of a ReLU network on a box.

    Implementations are frozen dataclasses: their fields are their options, and they keep no state, so that one function
    serves evaluation, autograd and a population of parameters under `torch.func.vmap`.
    """

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
        """
