"""Distillation: another loss, and how far the logits are from a teacher's."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import Prepared
from certtrain.losses.beside import Beside
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.losses.teacher import Teacher, teacher_parameters
from certtrain.losses.trades import divergence
from certtrain.networks.graph import Params

LOGITS = "teacher_logits"


@dataclass(frozen=True, kw_only=True)
class Distillation(Beside):
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

    teacher: Teacher = field(default=None, repr=False)
    weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_number("weight", self.weight)
        check_number("temperature", self.temperature, above=True)

    def prepare_own(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Beside`."""
        with torch.no_grad():
            return {LOGITS: problem.evaluate(teacher_parameters(self.teacher, problem), problem.inputs)}

    def added(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Beside`."""
        softer, student = 1 / self.temperature, problem.logits(params)
        return self.weight * divergence(softer * prepared[LOGITS], softer * student) / softer**2
