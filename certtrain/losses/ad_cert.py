"""AD-CERT (arXiv 2606.31653): adversarial distillation of logits, and the verified loss."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from certtrain.losses.base import Prepared
from certtrain.losses.expressive import Expressive
from certtrain.losses.options import check_number
from certtrain.losses.problem import Problem
from certtrain.losses.robust_cross_entropy import robust_cross_entropy
from certtrain.losses.teacher import Teacher, teacher_parameters
from certtrain.losses.trades import divergence
from certtrain.networks.graph import Params

LOGITS = "teacher_logits"


@dataclass(frozen=True, kw_only=True)
class AdCert(Expressive):
    """α · robust cross-entropy + (1 - α) · T² · KL(teacher ‖ student) of softmax(logits / T) at attacked points.

    The divergence stands where the expressive losses have the adversarial loss; the teacher is an empirically robust
    network of the same architecture. That much is published in the abstract; that the teacher is asked at the attacked
    points, too, and that these maximise the student's cross-entropy is what is done here.

    Attributes:
        alpha: α in [0, 1], from distilled (0) to verified (1).
        teacher: Its parameters and buffers by name; None is refused when it is needed.
        temperature: T.

    Raises:
        ConfigError: If a number is out of range; from `prepare`, if there is no teacher or it has another architecture.
    """

    alpha: float = 0.01
    teacher: Teacher = field(default=None, repr=False)
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temperature", self.temperature, above=True)

    def prepare_robust(self, problem: Problem, params: Params, generation: int) -> Prepared:
        """See `Mixed`."""
        teacher = teacher_parameters(self.teacher, problem)
        prepared = super().prepare_robust(problem, params, generation)
        if self.alpha == 1:
            return prepared
        with torch.no_grad():
            return {**prepared, LOGITS: problem.evaluate(teacher, prepared["points"])}

    def robust(self, problem: Problem, params: Params, prepared: Prepared) -> Float[Tensor, " batch"]:
        """See `Mixed`; what has no weight is not computed."""
        total = problem.inputs.new_zeros(len(problem.inputs))
        if self.alpha > 0:
            total = total + self.alpha * robust_cross_entropy(problem.lower_margins(params))
        if self.alpha < 1:
            softer, student = 1 / self.temperature, problem.evaluate(params, prepared["points"])
            distance = divergence(softer * prepared[LOGITS], softer * student) / softer**2
            total = total + (1 - self.alpha) * distance
        return total
