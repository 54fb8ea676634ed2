"""A teacher's checkpoint, for the losses that distil from it."""

from __future__ import annotations

from pathlib import Path

from certtrain.errors import CerttrainError, ConfigError
from certtrain.losses import AdCert, Adversary, Distillation, FeatureDistillation, Loss
from certtrain.losses.teacher import Teacher
from certtrain.training.checkpoints import check_finite, network_state


def distillation(base: Loss, teacher: str | None, weight: float, temperature: float) -> Distillation:
    """`Distillation` from a checkpoint.

    Args:
        base: What is minimised beside.
        teacher: A checkpoint of a run with the same architecture; None for none, which is refused when a run begins.
        weight: Of the divergence.
        temperature: Of the logits.

    Raises:
        ConfigError: If there is no such checkpoint, it holds numbers that are not finite, or an option is out of range.
    """
    return Distillation(base=base, teacher=_read(teacher), weight=weight, temperature=temperature)


def feature_distillation(base: Loss, teacher: str | None, layer: str | int, weight: float) -> FeatureDistillation:
    """`FeatureDistillation` from a checkpoint.

    Args:
        base: What is minimised beside.
        teacher: See `distillation`.
        layer: Whose output is compared.
        weight: Of the distance.

    Raises:
        ConfigError: See `distillation`.
    """
    return FeatureDistillation(base=base, teacher=_read(teacher), layer=layer, weight=weight)


def ad_cert(
    teacher: str | None, alpha: float, temperature: float, attack: Adversary, l1: float, shi: float = 0.0
) -> AdCert:
    """`AdCert` with a checkpoint as teacher.

    Args:
        teacher: See `distillation`.
        alpha: From distilled (0) to verified (1).
        temperature: Of the logits.
        attack: Finds the points.
        l1: See `Mixed`.
        shi: See `Mixed`.

    Raises:
        ConfigError: See `distillation`.
    """
    return AdCert(teacher=_read(teacher), alpha=alpha, temperature=temperature, attack=attack, l1=l1, shi=shi)


def _read(teacher: str | None) -> Teacher:
    if teacher is None:
        return None
    try:
        state = network_state(Path(teacher))
        check_finite(state, Path(teacher))
        return state
    except CerttrainError as error:
        raise ConfigError(f"loss.teacher: {error}") from error
