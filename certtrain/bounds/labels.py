"""Labels as people have them, of any integer type, and the specification that belongs to them."""

from __future__ import annotations

from operator import index
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.arrays import as_tensor
from certtrain.errors import ConfigError


def integer_labels(labels: Any) -> Int[Tensor, " batch"]:
    """Labels as int64, whatever they were.

    Args:
        labels: One class per image: a tensor or array of any integer type (also bool), or a list of integers.

    Raises:
        ConfigError: If they are something else.
    """
    found = as_tensor(labels, "labels")
    if found.is_floating_point() or found.is_complex():
        raise ConfigError(f"labels must be integers, got {found.dtype}")
    if found.dim() != 1:
        raise ConfigError(f"labels must be one integer per image, got shape {tuple(found.shape)}")
    # uint8 and bool would select like masks, other types cannot index at all.
    return found.to(torch.int64)


def class_labels(labels: Any, num_classes: int) -> Int[Tensor, " batch"]:
    """The same, if all of them are classes.

    Args:
        labels: As in `integer_labels`.
        num_classes: Classes are 0 to num_classes - 1.

    Raises:
        ConfigError: If they are no integers, or one of them is no class.
    """
    found = integer_labels(labels)
    if len(found) and not (int(found.min()) >= 0 and int(found.max()) < num_classes):
        raise ConfigError(f"labels must lie in 0..{num_classes - 1}, got {int(found.min())}..{int(found.max())}")
    return found


def margin_spec(labels: Any, num_classes: int) -> Float[Tensor, "batch rows classes"]:
    """Rows e_y - e_j for every wrong class j, in increasing j: [batch, num_classes - 1, num_classes].

    An image is certified iff the lower bounds of all its rows are positive.

    Args:
        labels: The right classes: integers as a tensor or an array of any integer type, or as a list.
        num_classes: Number of classes, at least 2.

    Raises:
        ConfigError: If a label is no class, or there are fewer than two.
    """
    try:
        classes = index(num_classes)
    except TypeError as error:
        raise ConfigError(f"num_classes must be an integer, got {num_classes!r}") from error
    if classes < 2:
        raise ConfigError(f"num_classes must be at least 2, got {classes}: one class has no margin")
    own = class_labels(labels, classes)
    eye = torch.eye(classes, device=own.device)
    wrong = torch.arange(classes - 1, device=own.device).expand(len(own), -1)
    wrong = wrong + (wrong >= own[:, None])
    return eye[own][:, None] - eye[wrong]
