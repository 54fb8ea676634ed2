"""ClipUp, an optimizer for gradients whose length means little (Toklu, Liskowski and Srivastava, PPSN 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from certtrain.errors import ConfigError


class ClipUp(Optimizer):
    """v ← momentum · v + lr · g/|g|, cut to |v| ≤ max_speed; θ ← θ - v. Norms are those of a group's whole vector.

    Only the direction of a gradient counts: even pure noise moves the parameters by a full step. A gradient that is
    exactly zero has no direction and adds nothing, so the velocity decays.

    Args:
        params: As every torch optimizer takes them.
        lr: Length that a gradient adds to the velocity, in the unit of the weights.
        momentum: Share of the velocity that is kept, in [0, 1).
        max_speed: Largest length of a step; None is 2 lr, whatever a scheduler makes of lr.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, max_speed: float | None = None) -> None:
        if not lr > 0:
            raise ConfigError(f"optimizer.lr must be positive, got {lr}")
        if not 0 <= momentum < 1:
            raise ConfigError(f"optimizer.momentum must be at least 0 and below 1, got {momentum}")
        if max_speed is not None and not max_speed > 0:
            raise ConfigError(f"optimizer.max_speed must be positive, or null, got {max_speed}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "max_speed": max_speed})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; parameters without a gradient keep still.

        Args:
            closure: Evaluates the loss again and returns it, as torch optimizers take it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(group, parameters)
        return loss

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        lr = group["lr"]
        max_speed = 2 * lr if group["max_speed"] is None else group["max_speed"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        length = _norm(gradients)
        for p in parameters:
            if not self.state[p]:
                self.state[p]["velocity"] = torch.zeros_like(p)
        velocities = [self.state[p]["velocity"] for p in parameters]
        # 0/0 would be NaN in every weight: a zero gradient has no direction.
        push = torch.where(length > 0, lr / length, torch.zeros_like(length))
        for gradient, velocity in zip(gradients, velocities, strict=True):
            velocity.mul_(group["momentum"]).add_(push * gradient)
        speed = _norm(velocities)
        cut = torch.where(speed > max_speed, max_speed / speed, torch.ones_like(speed))
        for p, velocity in zip(parameters, velocities, strict=True):
            p.sub_(velocity.mul_(cut))


def _norm(tensors: list[Tensor]) -> Tensor:
    """Norm of all numbers together."""
    return torch.stack([torch.linalg.vector_norm(t) for t in tensors]).norm()
