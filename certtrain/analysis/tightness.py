"""How far certified margins are from those that exist: from attacks, and from the exact minimum where it is known."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.analysis.subject import Subject
from certtrain.attacks import PGD
from certtrain.deadline import OutOfTime
from certtrain.errors import CerttrainError, one_line


@dataclass(frozen=True)
class Tightness:
    """Smallest margins over the box, image by image; all in the unit of the logits.

    Attributes:
        bounds: Relaxation -> lower bounds, [images].
        attacked: The smallest margins that PGD found, [images]: upper bounds of the truth.
        exact: The smallest margins there are, [images]; NaN where they are not known.
        unknown: Why some are not known; empty where all are.
    """

    bounds: Mapping[str, Float[Tensor, " images"]]
    attacked: Float[Tensor, " images"]
    exact: Float[Tensor, " images"]
    unknown: str = ""

    def gap_to_attack(self, name: str) -> float:
        """Mean of what PGD found minus the bound: at least how loose the bound is not; an upper bound of looseness."""
        return float((self.attacked - self.bounds[name]).mean())

    def gap_to_exact(self, name: str) -> float:
        """Mean of the exact margin minus the bound, over images where it is known; NaN where it is for none."""
        return float((self.exact - self.bounds[name]).nanmean())


def tightness(subject: Subject, attack: PGD, seed: int, exact_seconds: float) -> Tightness:
    """Bounds of all relaxations, attacks, and exact minima.

    Args:
        subject: In float64, which exact minima need.
        attack: With `enough=-inf`, so that it looks for the lowest margin.
        seed: Of the attack.
        exact_seconds: Time for all exact minima together; 0 asks for none.
    """
    bounds = {}
    with torch.no_grad():
        for name in subject.relaxations:
            bounds[name] = subject.problem(name).lower_margins(subject.params).amin(1)
    problem = subject.problem(next(iter(subject.relaxations)))
    keys = [(seed, position) for position in range(len(subject.inputs))]
    _, attacked = attack.worst(problem.margins_at(subject.params), problem.box, keys)
    exact, unknown = _exact(subject, exact_seconds)
    return Tightness(bounds, attacked, exact.to(attacked), unknown)


def _exact(subject: Subject, seconds: float) -> tuple[Tensor, str]:
    """Exact minima of as many images as the time allows, [images], and why the others are NaN."""
    found = torch.full((len(subject.inputs),), torch.nan, dtype=torch.float64)
    if seconds <= 0:
        return found, "not asked for"
    from certtrain.certify.milp import exact_minimum  # SciPy's optimizers take half a second to import

    problem = subject.problem(next(iter(subject.relaxations)))
    deadline = time.perf_counter() + seconds
    for image in range(len(found)):
        box, spec = problem.box[image : image + 1], problem.spec[image : image + 1]
        try:
            found[image] = exact_minimum(subject.graph, subject.params, box, spec, deadline=deadline).lower.amin()
        except OutOfTime:
            return found, f"{seconds:g} s were enough for {image} of {len(found)} images"
        except CerttrainError as error:
            return found, one_line(error)
    return found, ""
