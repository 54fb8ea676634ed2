"""Feature distillation: another loss, and how far the features of a layer are from a teacher's (after CC-DIST)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.errors import ConfigError
from certtrain.losses.base import Prepared
from certtrain.losses.beside import Beside
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.losses.teacher import Teacher, teacher_parameters
from certtrain.networks.graph import Graph, Params
from certtrain.networks.split import split

FEATURES = "teacher_features"


@dataclass(frozen=True, kw_only=True)
class FeatureDistillation(Beside):
    """base + weight · mean over a layer's elements of (student - teacher)², at the unperturbed images.

    CC-DIST (arXiv 2602.02626) distils features of an adversarially trained teacher into a student that a convex
    combination trains, loss=cc_ibp here. Which points and which combination of features with their bounds it compares
    was not available: here they are the features at the images.

    Attributes:
        base: What is minimised beside.
        teacher: Its parameters and buffers by name; None is refused when it is needed.
        layer: Whose output is compared, see `networks.split.place_of`: -1 is the last activation.
        weight: Of the distance.

    Raises:
        ConfigError: If a number is out of range; from `prepare`, if there is no teacher or no such layer.
    """

    teacher: Teacher = field(default=None, repr=False)
    layer: str | int = -1
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)
        if type(self.layer) not in (int, str):
            raise ConfigError(f"loss.layer must be a name of a layer or a whole number, got {self.layer!r}")

    def prepare_own(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Beside`."""
        teacher = teacher_parameters(self.teacher, problem)
        with torch.no_grad():
            return {FEATURES: problem.evaluate(teacher, problem.inputs, self._head(problem))}

    def added(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Beside`."""
        student = problem.evaluate(params, problem.inputs, self._head(problem))
        return self.weight * (student - prepared[FEATURES]).square().mean(1)

    def _head(self, problem: Problem) -> Graph:
        try:
            return split(problem.graph, self.layer).head
        except ConfigError as error:
            raise ConfigError(f"loss.layer: {error}") from error
