"""Averages of the weights along a run: which weights count, and how much."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from certtrain.errors import ConfigError


@dataclass(frozen=True)
class Moment:
    """Where a run is, after a step.

    Attributes:
        done: Share of the run that has passed, from 0 to 1.
        epoch_ends: Whether it was the last step of its epoch.
    """

    done: float
    epoch_ends: bool


class Average(ABC):
    """A rule for the running average a ← a + share · (weights - a)."""

    @abstractmethod
    def share(self, moment: Moment, samples: int) -> float:
        """How much of the distance to the present weights the average goes; 0 where they do not count.

        Args:
            moment: Where the run is.
            samples: Weights that have counted so far; the first ones are taken as they are, whatever this says.
        """


@dataclass(frozen=True)
class NoAverage(Average):
    """The last weights are those of the run."""

    def share(self, moment: Moment, samples: int) -> float:
        """See `Average`."""
        return 0.0


@dataclass(frozen=True)
class Ema(Average):
    """An exponential moving average over steps; a plain one until that is shorter.

    Attributes:
        decay: Share of the average that stays at every step, in [0, 1).

    Raises:
        ConfigError: If it is out of range.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        _check("decay", self.decay)

    def share(self, moment: Moment, samples: int) -> float:
        """See `Average`."""
        return max(1 - self.decay, 1 / (samples + 1))


@dataclass(frozen=True)
class Swa(Average):
    """Stochastic weight averaging (Izmailov et al., UAI 2018): the mean of the weights at the ends of late epochs.

    Attributes:
        start: Share of the run before the first weights count, in [0, 1).

    Raises:
        ConfigError: If it is out of range.
    """

    start: float = 0.75

    def __post_init__(self) -> None:
        _check("start", self.start)

    def share(self, moment: Moment, samples: int) -> float:
        """See `Average`."""
        return 1 / (samples + 1) if moment.epoch_ends and moment.done > self.start else 0.0


def _check(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ConfigError(f"average.{name} must be a number >= 0 and < 1, got {value!r}")
