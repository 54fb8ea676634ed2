"""What others have published: natural and certified accuracies, each with its verifier and its source."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """One published result.

    Attributes:
        data: Name of the data set, as data.name has it.
        eps: Radius, pixel units.
        method: The training.
        natural: In percent; None where it is not known.
        certified: In percent.
        network: Which.
        verifier: What certified.
        source: Who published it.
    """

    data: str
    eps: float
    method: str
    natural: float | None
    certified: float
    network: str
    verifier: str
    source: str


@functools.cache
def all_published() -> tuple[Published, ...]:
    """Everything in published.yaml."""
    import yaml

    settings = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tuple(
        Published(
            setting["data"],
            _radius(setting["eps"]),
            method,
            natural,
            certified,
            setting["network"],
            setting["verifier"],
            setting["source"],
        )
        for setting in settings
        for method, (natural, certified) in setting["results"].items()
    )


def published_for(data: str, eps: float) -> list[Published]:
    """What is known of a data set at a radius, and of no other one."""
    return [one for one in all_published() if one.data == data and math.isclose(one.eps, eps, rel_tol=1e-6)]


def _radius(value: float | str) -> float:
    """A number, or a fraction such as 2/255."""
    above, _, below = str(value).partition("/")
    return float(above) / float(below or 1)
