"""Sets of questions, as the competition groups them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from benchmarks.vnncomp import controllers
from benchmarks.vnncomp.workshop import Workshop
from certtrain.certify.properties import Property
from certtrain.errors import ConfigError


@dataclass(frozen=True)
class Asked:
    """A network, and what is asked about it.

    Attributes:
        name: Of the network.
        shape: Of its input.
        make: The network; it may take long.
        properties: Name -> property; needs the network where its own answers choose the images.
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], nn.Module]
    properties: Callable[[], Mapping[str, Property]]


@dataclass(frozen=True)
class QuestionSet:
    """Networks and properties of one kind.

    Attributes:
        limit: Seconds for each property, the competition's.
        asked: The networks.
    """

    limit: float
    asked: Callable[[Workshop], Iterator[Asked]]


def _images(names: tuple[str, ...], workshop: Workshop) -> Iterator[Asked]:
    for name in names:
        shape = workshop.shape(name)
        yield Asked(name, shape, partial(workshop.network, name), partial(_robustness, name, workshop))


def _robustness(name: str, workshop: Workshop) -> dict[str, Property]:
    """Of each image on each ball."""
    found, counts = {}, Counter[str]()
    for one in workshop.instances(name):
        eps = f"{one.eps:.4g}"
        found[f"{name}_{counts[eps]}_{eps}"] = Property.robust(one.image, one.label, one.eps, 10)
        counts[eps] += 1
    return found


def _controllers(workshop: Workshop) -> Iterator[Asked]:
    for name, previous, delay in controllers.networks():
        make = partial(_trained, workshop, name, previous, delay)
        yield Asked(name, (5,), make, lambda: dict(controllers.properties()))


def _trained(workshop: Workshop, name: str, previous: int, delay: float) -> nn.Module:
    workshop.say(f"training {name}")
    return controllers.network(previous, delay)


# Limits of 2021's competition (Bak et al., arXiv 2109.00498).
SETS: Mapping[str, QuestionSet] = {
    "mnist_fc": QuestionSet(120.0, partial(_images, ("mnist_256x2", "mnist_256x4", "mnist_256x6"))),
    "eran": QuestionSet(300.0, partial(_images, ("mnist_relu_8x200", "mnist_sigmoid_6x200"))),
    "mnist_resnet": QuestionSet(120.0, partial(_images, ("mnist_resnet",))),
    "cifar10_resnet": QuestionSet(300.0, partial(_images, ("cifar10_resnet",))),
    "oval21": QuestionSet(720.0, partial(_images, ("oval_base", "oval_wide", "oval_deep"))),
    "acas": QuestionSet(116.0, _controllers),
}


def set_of(name: str) -> QuestionSet:
    """A set by its name.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in SETS:
        raise ConfigError(f"unknown set '{name}': one of {', '.join(SETS)}")
    return SETS[name]
