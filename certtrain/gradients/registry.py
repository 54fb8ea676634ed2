"""The control variates by name. A new one is a file here and a line in `CONTROL_VARIATES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from certtrain.errors import ConfigError
from certtrain.gradients.adaptive import AdaptiveGradient
from certtrain.gradients.control_variate import ControlVariate
from certtrain.gradients.plain_gradient import PlainGradient
from certtrain.gradients.smoothed_gradient import SmoothedGradient
from certtrain.spelling import did_you_mean

NONE = "none"


@dataclass(frozen=True)
class Makers:
    """What makes a control variate, by how many gradients it is to take the mean of.

    Attributes:
        default: Where that is not said.
        of_samples: For a number; None where it takes none.
        adaptive: Where it finds out by itself; None where it cannot.
    """

    default: Callable[[], ControlVariate]
    of_samples: Callable[[int], ControlVariate] | None = None
    adaptive: Callable[[], ControlVariate] | None = None

    def counted(self, samples: int | str) -> Callable[[], ControlVariate] | None:
        """Makes it with so many gradients, or auto; None where it cannot have that."""
        if samples == "auto":
            return self.adaptive
        return None if self.of_samples is None else partial(self.of_samples, int(samples))


CONTROL_VARIATES: Mapping[str, Makers] = {
    "gradient": Makers(PlainGradient),
    "rgs": Makers(SmoothedGradient, SmoothedGradient, AdaptiveGradient),
}


def control_variates() -> tuple[str, ...]:
    """All names, that of none at all among them."""
    return (NONE, *CONTROL_VARIATES)


def make_control_variate(name: str, samples: int | str | None) -> ControlVariate | None:
    """The control variate of a name; None for `none`.

    Args:
        name: One of `control_variates()`.
        samples: Gradients that it takes the mean of, or auto; None for its default, and where it takes no such number.

    Raises:
        ConfigError: If there is none of that name, or it takes no samples.
    """
    if name not in control_variates():
        legal = control_variates()
        raise ConfigError(
            f"pgpe.control_variate must be one of {', '.join(legal)}, got {name}{did_you_mean(name, legal)}"
        )
    if samples is None:
        return None if name == NONE else CONTROL_VARIATES[name].default()
    able = {n: make for n, makers in CONTROL_VARIATES.items() if (make := makers.counted(samples)) is not None}
    if name not in able:
        raise ConfigError(
            f"pgpe.control_samples is for pgpe.control_variate={' or '.join(able)}, got {samples} with {name}"
        )
    return able[name]()
