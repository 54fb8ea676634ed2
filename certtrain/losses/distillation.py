"""Distillation: another loss, and how far the logits are from a teacher's."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import NOTHING, Loss, Prepared
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.losses.teacher import Teacher, teacher_parameters
from certtrain.losses.trades import divergence
from certtrain.networks.graph import Params

LOGITS = "teacher_logits"


@dataclass(frozen=True, kw_only=True)
class Distillation(Loss):
    """base + weight · T² · KL(teacher ‖ student) of softmax(logits / T) at the unperturbed images.

    The teacher has the student's architecture (Hinton et al., 2015).

    Attributes:
        base: What is minimised beside.
        teacher: Its parameters and buffers by name; None is refused when it is needed.
        weight: Of the divergence.
        temperature: T.

    Raises:
        ConfigError: If a number is out of range; from `prepare`, if there is no teacher or it has another architecture.
    """

    base: Loss
    teacher: Teacher = field(default=None, repr=False)
    weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)
        check_number("temperature", self.temperature, above=True)

    @property
    def differentiates_its_value(self) -> bool:
        """See `Loss`."""
        return self.base.differentiates_its_value

    @property
    def certifies(self) -> bool:
        """See `Loss`."""
        return self.base.certifies

    @property
    def divisible(self) -> bool:
        """See `Loss`."""
        return self.base.divisible

    def prepare(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Loss`."""
        with torch.no_grad():
            logits = problem.evaluate(teacher_parameters(self.teacher, problem), problem.inputs)
        return {**self.base.prepare(problem, params, generation), LOGITS: logits}

    def per_image(self, problem: Problem, params: Params, prepared: Prepared = NOTHING) -> Float[Tensor, " batch"]:
        """See `Loss`."""
        softer, student = 1 / self.temperature, problem.logits(params)
        distance = divergence(softer * prepared[LOGITS], softer * student) / softer**2
        return self.base.per_image(problem, params, prepared) + self.weight * distance

    def penalty(self, params: Params) -> Tensor | float:
        """See `Loss`."""
        return self.base.penalty(params)

    def penalty_of_bounds(self, problem: Problem, params: Params) -> Tensor | float:
        """See `Loss`."""
        return self.base.penalty_of_bounds(problem, params)
