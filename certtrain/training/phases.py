"""The phases of a run: a warm start by plain gradients, then the method; how steps become epochs."""

from __future__ import annotations

from dataclasses import dataclass

from certtrain.gradients.base import ALONE
from certtrain.gradients.ranks import Ranks
from certtrain.training.average import Moment


@dataclass(frozen=True)
class WarmStart:
    """Plain gradients before the method.

    Attributes:
        epochs: How many epochs; 0 for none.
        ranks: The processes of the run as they divide a batch, whatever the method divides.
    """

    epochs: int = 0
    ranks: Ranks = ALONE


NO_WARM_START = WarmStart()


@dataclass(frozen=True)
class Phases:
    """Steps and epochs of a run whose batches may have another size while it is warm-started.

    Attributes:
        warm_epochs: Epochs of the warm start, 0 for none.
        warm_batches: Steps of each of them.
        batches: Steps of every later epoch.
    """

    warm_epochs: int
    warm_batches: int
    batches: int

    @property
    def switch(self) -> int:
        """The first step of the method."""
        return self.warm_epochs * self.warm_batches

    def warm(self, step: int) -> bool:
        """Whether a step belongs to the warm start."""
        return step < self.switch

    def epoch(self, step: int) -> float:
        """Epochs, as a fraction, that have passed before a step."""
        if self.warm(step):
            return step / self.warm_batches
        return self.warm_epochs + (step - self.switch) / self.batches

    def place(self, step: int) -> tuple[int, int]:
        """The epoch that a step belongs to, and its number in there."""
        if self.warm(step):
            return divmod(step, self.warm_batches)
        epochs, number = divmod(step - self.switch, self.batches)
        return self.warm_epochs + epochs, number

    def moment(self, step: int, total: int) -> Moment:
        """Where a run of so many steps in total is when so many are done."""
        return Moment(step / max(total, 1), step == total or self.place(step)[1] == 0)

    def steps(self, epochs: int) -> int:
        """Steps of a run of so many epochs."""
        warm = min(epochs, self.warm_epochs)
        return warm * self.warm_batches + (epochs - warm) * self.batches
