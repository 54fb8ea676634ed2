"""What adds something to another loss and leaves everything else to it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import NOTHING, Loss, Prepared
from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params

# What the other loss has prepared stands under its own names behind this: it may be of the same kind.
OTHER = "base."


@dataclass(frozen=True, kw_only=True)
class Beside(Loss):
    """A loss beside another one, which has the penalties and decides what both together are.

    Attributes:
        base: The other one.
    """

    base: Loss

    @abstractmethod
    def prepare_own(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """What the added loss needs; see `Loss.prepare`."""

    @abstractmethod
    def added(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """What is added for each image; see `Loss.per_image`."""

    def prepare(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Loss`."""
        own = self.prepare_own(problem, params, generation)
        other = self.base.prepare(problem, params, generation)
        return {**own, **{OTHER + name: x for name, x in other.items()}}

    def per_image(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> Float[Tensor, " batch"]:
        """See `Loss`."""
        other = {name.removeprefix(OTHER): x for name, x in prepared.items() if name.startswith(OTHER)}
        return self.base.per_image(problem, params, other) + self.added(problem, params, prepared)

    @property
    def differentiates_its_value(self) -> bool:
        """See `Loss`."""
        return self.base.differentiates_its_value

    @property
    def certifies(self) -> bool:
        """See `Loss`."""
        return self.base.certifies

    @property
    def divisible(self) -> bool:
        """See `Loss`."""
        return self.base.divisible

    def penalty(self, params: Params) -> Tensor | float:
        """See `Loss`."""
        return self.base.penalty(params)

    def penalty_of_bounds(self, problem: Problem, params: Params) -> Tensor | float:
        """See `Loss`."""
        return self.base.penalty_of_bounds(problem, params)
