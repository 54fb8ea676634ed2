"""Numbers that change while training: eps, the natural loss's weight, the learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from certtrain.errors import ConfigError

# Arguments of torch's schedulers that mean "how many steps there are".
HORIZONS = ("T_max", "total_steps", "total_iters")


@dataclass(frozen=True)
class Ramp:
    """`start` during the warm-up, then linearly to `end`, which stays.

    Attributes:
        start: Value in the beginning.
        end: Value after warm-up and ramp.
        warmup: Epochs before the ramp begins.
        ramp: Epochs that the ramp takes; 0 jumps.
    """

    start: float
    end: float
    warmup: float = 0.0
    ramp: float = 0.0

    def __call__(self, epoch: float) -> float:
        """Value after a number of epochs, which may be a fraction."""
        done = self.progress(epoch)
        return self.end if done == 1 else self.start + (self.end - self.start) * done

    def progress(self, epoch: float) -> float:
        """How much of the ramp is done: 0 during the warm-up, 1 at the end."""
        if epoch >= self.warmup + self.ramp:
            return 1.0
        return (epoch - self.warmup) / self.ramp if epoch > self.warmup else 0.0


def with_horizon(factory: Callable[..., LRScheduler], optimizer: Optimizer, steps: int) -> LRScheduler:
    """Builds a scheduler; an argument for its number of steps that is configured as null gets the run's.

    Args:
        factory: A partial of the scheduler's class, all arguments but the optimizer given.
        optimizer: What it schedules.
        steps: Optimizer steps of the whole run.
    """
    given = factory.keywords if isinstance(factory, partial) else {}
    target = factory.func if isinstance(factory, partial) else factory
    legal = inspect.signature(target).parameters
    horizon = {name: steps for name in HORIZONS if name in legal and name in given and given[name] is None}
    return factory(optimizer, **horizon)


def multistep(
    optimizer: Optimizer, milestones: Sequence[float], gamma: float, total_steps: int | None = None
) -> MultiStepLR:
    """MultiStepLR whose milestones are fractions of the run in (0, 1).

    Args:
        optimizer: What it schedules.
        milestones: After which fraction of the run the rate is multiplied, each time, by `gamma`.
        gamma: The factor.
        total_steps: Optimizer steps of the run.
    """
    legal = isinstance(milestones, (list, tuple)) and all(isinstance(m, (int, float)) for m in milestones)
    if not legal or not all(0 < fraction < 1 for fraction in milestones):
        raise ConfigError(f"scheduler.milestones are fractions of the run, between 0 and 1, got {milestones}")
    steps = [round(fraction * (total_steps or 1)) for fraction in milestones]
    return MultiStepLR(optimizer, steps, gamma)
