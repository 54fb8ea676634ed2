"""The interface of all losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from certtrain.losses.problem import Problem
from certtrain.networks.graph import Params

# What a loss has worked out once for a generation, by name; detached.
Prepared = Mapping[str, Tensor]
NOTHING: Prepared = {}


class Loss(ABC):
    """A training loss: the mean of one value per image, and penalties: of the parameters, and of bounds.

    Given what was prepared, it must be a pure function of the parameters, so that it can be vectorised over them.
    """

    def prepare(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """What is worked out once per generation, at the centre of a population, and then shared by all its members.

        Attacks belong here: by themselves they are no function that could be vectorised, and too dear to be repeated
        for every member.

        Args:
            problem: What the loss will be evaluated on.
            params: The centre, with batch norm's statistics.
            generation: Its number. Randomness is a function of `problem.keys(generation)`: the same on every rank, and
                in a run that goes on after an interruption.
        """
        return NOTHING

    @property
    def differentiates_its_value(self) -> bool:
        """Whether its derivatives are those of its values; False where a publication put others in their place."""
        return True

    @property
    def certifies(self) -> bool:
        """Whether it is made of bounds over the whole box, so that the relaxation that trains certifies what it trains.

        False where little or nothing of it is. Loose bounds certify next to nothing of such networks, and validation
        asks tighter ones.
        """
        return True

    @property
    def divisible(self) -> bool:
        """Whether an image has the loss that it has in any other batch: then a batch may be divided."""
        return True

    @abstractmethod
    def per_image(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> Float[Tensor, " batch"]:
        """The loss of each image; what validation reports is its mean."""

    def penalty(self, params: Params) -> Tensor | float:
        """What is added for the parameters themselves."""
        return 0.0

    def penalty_of_bounds(self, problem: Problem, params: Params) -> Tensor | float:
        """What is added for the bounds inside the network: a mean over the images. No part of what validation says."""
        return 0.0

    def __call__(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> Tensor:
        """What is minimised: a scalar.

        Args:
            problem: What it is evaluated on.
            params: Parameter name -> tensor, with batch norm's statistics.
            prepared: What `prepare` returned for this problem.
        """
        mean = self.per_image(problem, params, prepared).mean()
        return mean + self.penalty(params) + self.penalty_of_bounds(problem, params)
