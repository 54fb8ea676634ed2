"""The common interface of gradient estimators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from certtrain.errors import CerttrainError
from certtrain.gradients.ranks import Alone, Ranks
from certtrain.networks.graph import Params

LossFunction = Callable[[Params], Tensor]

# What an estimator remembers from one generation to the next: plain tensors, so that a checkpoint can hold them.
State = dict[str, Tensor]

ALONE = Alone()


class EstimationError(CerttrainError):
    """No usable gradient could be estimated."""


@dataclass(frozen=True)
class Estimate:
    """What an estimator found out about a loss at given parameters.

    Attributes:
        gradient: Parameter name -> estimate of its gradient, detached, in the parameter's shape.
        loss: Scalar: the loss where it was evaluated (for a population, its mean).
        statistics: Further numbers worth logging, name -> scalar.
        state: What the next estimate continues from.
    """

    gradient: Params
    loss: Tensor
    statistics: dict[str, float] = field(default_factory=dict)
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What one evaluation of the loss takes by itself, about.

    Attributes:
        seconds: Time.
        bytes: Memory, with its own noise and parameters; None where it cannot be told.
    """

    seconds: float
    bytes: int | None


@dataclass(frozen=True)
class Choice:
    """Which way of evaluating a population is the fastest here.

    Attributes:
        strategy: Its name.
        seconds: Every way that works -> seconds per member.
        refused: Every way that does not -> why, in one line.
        untried: Every way that was not even tried -> why, in one line.
    """

    strategy: str
    seconds: Mapping[str, float]
    refused: Mapping[str, str]
    untried: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line for people."""
        timed = [f"{name} {1e3 * seconds:.3g} ms" for name, seconds in self.seconds.items()]
        failed = [f"{name} is not possible: {reason}" for name, reason in self.refused.items()]
        failed += [f"{name} was not tried: {reason}" for name, reason in self.untried.items()]
        return f"population strategy auto: {self.strategy} (per member: {', '.join([*timed, *failed])})"


class GradientEstimator(ABC):
    """Estimates the gradient of a loss, or of a smoothed version of it."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Members evaluated for one estimate."""

    @property
    def guesses(self) -> int:
        """Gradients that the first estimate takes beside them, each of a process's part of the batch."""
        return 0

    @property
    @abstractmethod
    def splits(self) -> Literal["population", "batch"]:
        """What several processes divide among them: a population, or the batch."""

    @property
    def perturbs(self) -> bool:
        """Whether `Estimate.loss` is a mean over perturbed parameters instead of the loss at the centre."""
        return True

    @property
    def has_members(self) -> bool:
        """Whether there is a population, of several members: two evaluations at the centre and uphill are none."""
        return self.perturbs and self.evaluations > 1

    @property
    def differentiates(self) -> bool:
        """Whether derivatives of the loss are needed, or its values are enough."""
        return self.splits == "batch"

    @property
    def unbiased(self) -> bool:
        """Whether the mean of estimates is the gradient of the smoothed loss; if not, it has that direction only."""
        return True

    @property
    def at_once(self) -> int:
        """Evaluations whose memory is held at a time, at most."""
        return 1

    @property
    def is_open(self) -> bool:
        """Whether something is left for the machine to decide."""
        return False

    def choose(self, loss: LossFunction, params: Params, cost: Cost | None = None) -> Choice | None:
        """Measures what is left open for the machine to decide; None where nothing is.

        Args:
            loss: See `estimate`.
            params: See `estimate`.
            cost: Of one evaluation: what it rules out is not tried. Where none is given, everything is.
        """
        return None

    def decided(self, strategy: str) -> GradientEstimator:
        """The same estimator with what was left open decided; what was named stays as it is."""
        return self

    def planned(self, generations: int) -> GradientEstimator:
        """The same estimator for a run of so many generations, if it was not told another number."""
        return self

    def rehearsing(self) -> GradientEstimator:
        """The same estimator with the smallest population: finds the same mistakes at the least cost."""
        return self

    def initial_state(self, params: Params) -> State:
        """What the first estimate continues from."""
        return {}

    @abstractmethod
    def estimate(
        self,
        loss: LossFunction,
        params: Params,
        generation: int,
        state: State | None = None,
        ranks: Ranks = ALONE,
    ) -> Estimate:
        """Estimates the gradient at `params`.

        Args:
            loss: Maps parameters to a scalar that is minimised.
            params: Parameter name -> tensor; not modified.
            generation: Number of this estimate; randomness is a function of it.
            state: `Estimate.state` of the estimate before; None or nothing begins anew.
            ranks: The processes that work on this estimate together.

        Raises:
            EstimationError: If no usable estimate comes out.
        """
