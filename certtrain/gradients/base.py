"""The common interface of gradient estimators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from certtrain.networks.graph import Params

LossFunction = Callable[[Params], Tensor]


@dataclass(frozen=True)
class Estimate:
    """What an estimator found out about a loss at given parameters.

    Attributes:
        gradient: Parameter name -> estimate of its gradient, detached, in the parameter's shape.
        loss: Scalar: the loss where it was evaluated (for a population, its mean).
        statistics: Further numbers worth logging, name -> scalar.
    """

    gradient: Params
    loss: Tensor
    statistics: dict[str, float] = field(default_factory=dict)


class GradientEstimator(ABC):
    """Estimates the gradient of a loss, or of a smoothed version of it."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Members evaluated for one estimate."""

    @abstractmethod
    def estimate(self, loss: LossFunction, params: Params, generation: int) -> Estimate:
        """Estimates the gradient at `params`.

        Args:
            loss: Maps parameters to a scalar that is minimised.
            params: Parameter name -> tensor; not modified.
            generation: Number of this estimate; randomness is a function of it.

        Raises:
            EstimationError: If no usable estimate comes out.
        """
