"""A teacher's checkpoint, for the loss that distils from it."""

from __future__ import annotations

from pathlib import Path

from certtrain.errors import CerttrainError, ConfigError
from certtrain.losses import Distillation, Loss
from certtrain.training.checkpoints import network_state


def distillation(base: Loss, teacher: str | None, weight: float, temperature: float) -> Distillation:
    """`Distillation` from a checkpoint.

    Args:
        base: What is minimised beside.
        teacher: A checkpoint of a run with the same architecture; None for none, which is refused when a run begins.
        weight: Of the divergence.
        temperature: Of the logits.

    Raises:
        ConfigError: If there is no such checkpoint, or a number is out of range.
    """
    try:
        state = None if teacher is None else network_state(Path(teacher))
    except CerttrainError as error:
        raise ConfigError(f"loss.teacher: {error}") from error
    return Distillation(base=base, teacher=state, weight=weight, temperature=temperature)
