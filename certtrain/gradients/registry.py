"""The control variates by name. A new one is a file here and a line in `CONTROL_VARIATES`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from certtrain.errors import ConfigError
from certtrain.gradients.adaptive import AdaptiveGradient
from certtrain.gradients.control_variate import ControlVariate
from certtrain.gradients.plain_gradient import PlainGradient
from certtrain.gradients.smoothed_gradient import SmoothedGradient
from certtrain.spelling import did_you_mean

NONE = "none"
# What has a field `samples` is told how many gradients it takes the mean of.
CONTROL_VARIATES: Mapping[str, type[ControlVariate]] = {"gradient": PlainGradient, "rgs": SmoothedGradient}
# Those that can find out by themselves how many they should take -> what does so.
ADAPTIVE: Mapping[str, type[ControlVariate]] = {"rgs": AdaptiveGradient}


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
        return None if name == NONE else CONTROL_VARIATES[name]()
    known = ADAPTIVE if samples == "auto" else {n: kind for n, kind in CONTROL_VARIATES.items() if _takes_samples(kind)}
    if name not in known:
        raise ConfigError(
            f"pgpe.control_samples is for pgpe.control_variate={' or '.join(known)}, got {samples} with {name}"
        )
    return known[name]() if samples == "auto" else known[name](samples)  # type: ignore[call-arg]


def _takes_samples(kind: type[ControlVariate]) -> bool:
    return any(field.name == "samples" for field in fields(kind))  # type: ignore[arg-type]
