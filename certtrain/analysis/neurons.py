"""What a relaxation knows of hidden neurons: how wide their pre-activation bounds are, and how many it decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from certtrain.activations import Interval
from certtrain.analysis.subject import Subject
from certtrain.bounds import Analysing, Relaxation, build
from certtrain.errors import ConfigError


@dataclass(frozen=True)
class Layer:
    """The inputs of one activation layer, counted per image, averaged over the images.

    Attributes:
        operation: Index of the activation in the graph.
        neurons: How many there are.
        active: Where the function is linear on the bounds, and they are not negative.
        inactive: Where it is linear on the bounds, and they are not positive.
        undecided: Where it is not linear on the bounds.
        width: Mean width of the bounds.
        undecided_width: Mean width over neurons that plain intervals leave undecided: those that intervals decide keep
            the width of intervals in several relaxations, since no line depends on it. NaN where there is none.
    """

    operation: int
    neurons: int
    active: float
    inactive: float
    undecided: float
    width: float
    undecided_width: float


def layers(subject: Subject, name: str) -> tuple[Layer, ...]:
    """Every activation layer, in order.

    Args:
        subject: The network and the images.
        name: Of one of its relaxations.

    Raises:
        ConfigError: If that relaxation tells no pre-activation bounds.
    """
    found, intervals = _hidden(subject, name, subject.relaxations[name]), _hidden(subject, "ibp", build("ibp"))
    images, told = len(subject.inputs), []
    for index, op in subject.graph.activations:
        z, plain = found[op.inputs[0]], intervals[op.inputs[0]]
        undecided = op.function.undecided(z)
        active = ~undecided & (z.lower >= 0)
        inactive = ~undecided & ~active & (z.upper <= 0)
        width, loose = z.upper - z.lower, op.function.undecided(plain)
        told.append(
            Layer(
                index,
                z.lower[0].numel(),
                float(active.sum()) / images,
                float(inactive.sum()) / images,
                float(undecided.sum()) / images,
                float(width.mean()),
                float(width[loose].mean()),
            )
        )
    return tuple(told)


def _hidden(subject: Subject, name: str, relaxation: Relaxation) -> Mapping[int, Interval]:
    """Operation that an activation reads -> its bounds, [images, *shape]."""
    if not isinstance(relaxation, Analysing):
        raise ConfigError(f"{name} tells no pre-activation bounds: take a native relaxation")
    box = subject.problem(next(iter(subject.relaxations))).box
    with torch.no_grad():
        return relaxation.analyse(subject.graph, subject.params, box, None, "lower").hidden
