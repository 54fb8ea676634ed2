"""Numbers that change while training: eps, the natural loss's weight, the learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, MultiStepLR

from certtrain.errors import ConfigError

# Arguments of torch's schedulers that mean "how many steps there are".
HORIZONS = ("T_max", "total_steps", "total_iters")


# Where the curve of `smooth` becomes a line, and its power up to there: those of auto_LiRPA's SmoothedScheduler.
MIDDLE, POWER = 0.25, 4


def _smooth(share: float) -> float:
    """A power of the share at first, then the line that goes on without a corner to (1, 1); scaled to meet it."""
    scale = 1 / ((1 - MIDDLE) * POWER * MIDDLE ** (POWER - 1) + MIDDLE**POWER)
    if share < MIDDLE:
        return scale * share**POWER
    return 1 - (1 - share) * scale * POWER * MIDDLE ** (POWER - 1)


# Share of the ramp's time -> share of the way from start to end.
SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "smooth": _smooth,
    "constant": lambda share: 1.0,
}


@dataclass(frozen=True)
class Ramp:
    """`start` during the warm-up, then along a curve to `end`, which stays.

    Attributes:
        start: Value in the beginning.
        end: Value after warm-up and ramp.
        warmup: Epochs before the ramp begins.
        ramp: Epochs that the ramp takes; 0 jumps.
        shape: Of the curve, a key of `SHAPES`; constant is `end` from the first epoch on, without warm-up and ramp.

    Raises:
        ConfigError: If a constant is given a warm-up or a ramp.
    """

    start: float
    end: float
    warmup: float = 0.0
    ramp: float = 0.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        if self.shape == "constant" and (self.warmup > 0 or self.ramp > 0):
            raise ConfigError(
                "schedule.eps.shape=constant is the full eps from the first step: "
                "set schedule.eps.warmup=0 and schedule.eps.ramp=0"
            )

    def __call__(self, epoch: float) -> float:
        """Value after a number of epochs, which may be a fraction."""
        done = self.progress(epoch)
        return self.end if done == 1 else self.start + (self.end - self.start) * done

    def progress(self, epoch: float) -> float:
        """Which share of the way is done: 0 during the warm-up, 1 at the end."""
        if epoch >= self.warmup + self.ramp:
            return 1.0
        return SHAPES[self.shape]((epoch - self.warmup) / self.ramp) if epoch > self.warmup else 0.0


def short_of(eps: Callable[[float], float], epoch: float, wanted: float) -> str | None:
    """What to say of a run whose last step was trained on smaller boxes than were asked for; None of others.

    Args:
        eps: Radius in pixel units after a number of epochs.
        epoch: Epochs that had passed before the last step.
        wanted: Radius in pixel units.
    """
    reached = eps(epoch)
    if reached >= wanted:
        return None
    return (
        f"note: training ended at eps {reached:.3g}, below {wanted:g}: "
        "train longer or shorten schedule.eps.warmup and schedule.eps.ramp"
    )


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


def cyclic(optimizer: Optimizer, cycles: int, floor: float, total_steps: int | None = None) -> CyclicLR:
    """Triangles: from `floor` times the rate up to it and down again, `cycles` times in a run.

    Args:
        optimizer: What it schedules; its rate is the highest.
        cycles: Triangles of a run, at least 1.
        floor: The lowest rate as a share of the highest, in (0, 1].
        total_steps: Optimizer steps of the run.
    """
    if not isinstance(cycles, int) or isinstance(cycles, bool) or cycles < 1:
        raise ConfigError(f"scheduler.cycles must be a whole number from 1 on, got {cycles!r}")
    if not isinstance(floor, (int, float)) or not 0 < floor <= 1:
        raise ConfigError(f"scheduler.floor must be a share of optimizer.lr above 0 and at most 1, got {floor!r}")
    highest = [group["lr"] for group in optimizer.param_groups]
    half = max((total_steps or 1) / (2 * cycles), 1.0)
    # Momentum is the optimizer's own business.
    return CyclicLR(optimizer, [floor * rate for rate in highest], highest, half, cycle_momentum=False)  # type: ignore[arg-type]
