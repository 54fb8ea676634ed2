"""What `certify` is called with, checked: every mistake is one line, and none becomes a verdict."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from operator import index
from typing import Any

import numpy as np
from torch import Tensor, nn

from certtrain.arrays import as_tensor
from certtrain.bounds.labels import integer_labels
from certtrain.certify.attack import Falsifier
from certtrain.certify.shard import WHOLE, Shard
from certtrain.errors import ConfigError


@dataclass(frozen=True)
class Images:
    """What is to be judged, image by image.

    Attributes:
        inputs: [images, *shape], floating-point, finite and in the range of legal pixels.
        labels: int64, [images]; whether they are classes only the network knows.
        eps: Radius of each image's ball.
        common_eps: The radius if all images have the same.
        indices: Number of each image in its data set; all different, none negative.
    """

    inputs: Tensor
    labels: Tensor
    eps: tuple[float, ...]
    common_eps: float | None
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Options:
    """How it is judged; see `certify`."""

    clip: tuple[float, float] | None
    attack: Falsifier
    batch_size: int
    memory_mb: int
    timeout_s: float | None


def read_images(inputs: Any, labels: Any, eps: Any, indices: Any, clip: tuple[float, float] | None) -> Images:
    """Images, their labels and their radii, from tensors, arrays or lists.

    Raises:
        ConfigError: One line about what is wrong.
    """
    found = as_tensor(inputs, "inputs")
    if not found.is_floating_point():
        raise ConfigError(f"inputs must be floating-point images, got {found.dtype}")
    if found.dim() < 2:
        raise ConfigError(f"inputs must be a batch of images, [images, *shape], got shape {tuple(found.shape)}")
    if not bool(found.isfinite().all()):
        raise ConfigError("inputs must be finite, got NaN or infinity among them")
    # A box cut to a range that its image lies outside would not contain the image.
    if clip is not None and bool(((found < clip[0]) | (found > clip[1])).any()):
        raise ConfigError(
            f"inputs must lie in clip={clip}, got {found.min():.4g} to {found.max():.4g}: "
            "normalisation belongs into the network (certtrain.networks.Normalize)"
        )
    classes, numbers = integer_labels(labels), _read_indices(indices, len(found))
    if not len(found) == len(classes) == len(numbers):
        raise ConfigError(f"{len(found)} inputs, {len(classes)} labels and {len(numbers)} indices; one of each")
    radii = _read_eps(eps, len(found))
    common = radii[0] if len(set(radii)) == 1 else _number(eps)
    return Images(found, classes, radii, common, numbers)


def read_options(model: Any, clip: Any, attack: Any, batch_size: Any, memory_mb: Any, timeout_s: Any) -> Options:
    """The other arguments.

    Raises:
        ConfigError: One line about what is wrong.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(attack, Falsifier):
        raise ConfigError(f"attack must be a certtrain.certify Attack, got {attack!r}")
    limit = read_timeout(timeout_s)
    return Options(
        _read_clip(clip), attack, _positive(batch_size, "batch_size"), _positive(memory_mb, "memory_mb"), limit
    )


def read_shard(shard: Any) -> Shard:
    """Which of the images are judged, from None or a pair (rank, ranks).

    Raises:
        ConfigError: One line about what is wrong.
    """
    if shard is None:
        return WHOLE
    try:
        rank, ranks = (_whole(number) for number in shard)
    except (TypeError, ValueError):
        rank, ranks = 0, 0
    if not 0 <= rank < ranks:
        raise ConfigError(f"shard must be a pair (rank, ranks) with 0 <= rank < ranks, or None, got {_shown(shard)}")
    return Shard(rank, ranks)


def check_outputs(ledger: Any, progress: Any) -> None:
    """Where verdicts go to.

    Raises:
        ConfigError: One line about what is wrong.
    """
    if ledger is not None and not isinstance(ledger, (str, os.PathLike)):
        raise ConfigError(f"ledger must be the path of a file, or None, got {ledger!r}")
    if ledger is not None and os.path.isdir(ledger):
        raise ConfigError(f"ledger must be the path of a file, {os.fspath(ledger)} is a folder")
    if progress is not None and not callable(progress):
        raise ConfigError(f"progress must be a function, or None, got {progress!r}")


def read_timeout(timeout_s: Any) -> float | None:
    """Seconds, or None for no limit.

    Raises:
        ConfigError: If it is no positive number.
    """
    limit = None if timeout_s is None else _number(timeout_s)
    if timeout_s is not None and not (limit is not None and 0 < limit < math.inf):
        raise ConfigError(f"timeout_s must be a positive number of seconds, or None for no limit, got {timeout_s!r}")
    return limit


def _read_eps(eps: Any, images: int) -> tuple[float, ...]:
    """One radius per image, from one for all or from as many as there are images."""
    common = _number(eps)
    several = common is None and isinstance(eps, (Tensor, np.ndarray, list, tuple))
    found = [_number(one) for one in eps] if several else [common]
    radii = tuple(one for one in found if one is not None and 0 <= one < math.inf)
    if len(radii) != len(found):
        raise ConfigError(f"eps must be a finite number >= 0, or one per image, got {_shown(eps)}")
    if several and len(radii) != images:
        raise ConfigError(f"eps must be one number, or one per image, got {len(radii)} for {images} images")
    return radii if several else radii * images


def _read_indices(indices: Any, images: int) -> tuple[int, ...]:
    if indices is None:
        return tuple(range(images))
    try:
        found = tuple(_whole(one) for one in indices)
    except TypeError as error:
        raise ConfigError(f"indices must be whole numbers >= 0, one per image, got {_shown(indices)}") from error
    if any(one < 0 for one in found):
        raise ConfigError(f"indices must be whole numbers >= 0, got {min(found)}")
    if len(set(found)) != len(found):
        raise ConfigError("indices must be different: a verdict belongs to one image")
    return found


def _read_clip(clip: Any) -> tuple[float, float] | None:
    if clip is None:
        return None
    ends = [_number(end) for end in clip] if isinstance(clip, (Sequence, Tensor, np.ndarray)) else []
    low, high = ends if len(ends) == 2 else (None, None)
    if low is None or high is None or not -math.inf < low < high < math.inf:
        raise ConfigError(f"clip must be a pair (low, high) of finite numbers, or None, got {_shown(clip)}")
    return low, high


def _number(value: Any) -> float | None:
    """A real number, perhaps one of numpy's or a tensor with one element; None if it is none."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0:
        value = value.item()
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def _whole(value: Any) -> int:
    """An integer of any kind but bool."""
    if isinstance(value, bool):
        raise TypeError("a bool is no number")
    return index(value)


def _positive(value: Any, name: str) -> int:
    try:
        found = _whole(value)
    except TypeError:
        found = 0
    if found < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
    return found


def _shown(value: Any) -> str:
    """A value in one line of bounded length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
