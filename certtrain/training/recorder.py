"""Numbers about a step that cost something to find out, so only for steps whose numbers are recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from certtrain.gradients.base import GradientEstimator, LossFunction
from certtrain.networks.graph import Params


class Recorder:
    """Made before a step, asked after it.

    A recorded step costs one more evaluation of the loss, at the centre, and a copy of the parameters. An estimator
    that evaluates nothing but the centre has reported that loss already.

    Args:
        params: Name -> parameter, before the step.
        loss: The step's loss.
        estimator: The step's estimator.
        active: Whether the step is recorded.
    """

    def __init__(self, params: Params, loss: LossFunction, estimator: GradientEstimator, active: bool) -> None:
        self._before: Params = {name: p.detach().clone() for name, p in params.items()} if active else {}
        self._centre: Tensor | None = None
        if active and estimator.perturbs:
            with torch.no_grad():
                self._centre = loss(self._before)

    def numbers(self, params: Params) -> dict[str, Tensor | float]:
        """Name -> scalar.

        train/centre_loss is the loss at the parameters before the step; step_length the norm of their change.

        Args:
            params: Name -> parameter, after the step.
        """
        if not self._before:
            return {}
        changes = [torch.linalg.vector_norm(p.detach() - self._before[name]) for name, p in params.items()]
        found: dict[str, Tensor | float] = {"step_length": torch.stack(changes).norm()}
        if self._centre is not None:
            found["train/centre_loss"] = self._centre
        return found
