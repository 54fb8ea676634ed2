"""What people pass for a tensor: tensors, arrays, and lists of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from certtrain.errors import ConfigError


def as_tensor(value: Any, name: str) -> Tensor:
    """A tensor as it is; an array, or a list of numbers or tensors, as a tensor of its own.

    Args:
        value: What was passed. A list of no numbers has no type: it becomes int64.
        name: What the argument is called.

    Raises:
        ConfigError: If it is something else, or a list is ragged.
    """
    if isinstance(value, Tensor):
        return value
    try:
        if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
            return torch.stack([torch.as_tensor(item) for item in value])
        array = np.array(value, dtype=np.int64 if isinstance(value, (list, tuple)) and not value else None)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        kind = type(value).__name__
        if isinstance(value, np.ndarray):
            kind = f"an array of {value.dtype}"
        elif isinstance(value, (list, tuple)):
            kind = f"a {kind} that is ragged or holds something else"
        raise ConfigError(f"{name} must be a tensor, an array or a list of numbers, got {kind}") from error
