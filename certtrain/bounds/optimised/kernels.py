"""The element-wise parts of optimised bounds, compiled where they can be: on CPUs, where nothing is differentiated.

Elsewhere tensor operations compute the same up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from certtrain.bounds.executors.compiled.build import Fused, Pass, fused
from certtrain.bounds.executors.compiled.pool import parallel
from certtrain.bounds.optimised.region import Held
from certtrain.bounds.rows.products import contract
from certtrain.networks.kernels import is_transformed

# Of Adam; the last is far below any square that matters, and far above numbers that processors are slow with.
MOMENTUM, SCALE, TINY = 0.9, 0.99, 1e-16
# Numbers below which a second thread is not worth being called.
ALONE = 1 << 15


def follow(rows: Tensor, line: Held, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Positive coefficients along lower lines, negative ones along upper lines.

    Args:
        rows: [rows, *shape].
        line: Around an activation with such inputs.
        shift: Added to the new rows, [rows, *shape]; None for nothing.

    Returns:
        The new rows, and what is added to their constants, [rows].
    """
    others = [*line.tensors, *([] if shift is None else [shift])]
    code = _code(rows, *others) if line.lower_intercept is None else None
    if code is not None:
        out, added = torch.empty_like(rows, memory_format=torch.contiguous_format), rows.new_empty(len(rows))
        _run(code.follow, rows, [rows, shift, line.lower, line.upper, line.intercept], [out, added])
        return out, added
    negative = rows.clamp(max=0)
    positive = rows - negative
    added = weighted(negative, line.intercept)
    if line.lower_intercept is not None:
        added = added + weighted(positive, line.lower_intercept)
    found = torch.addcmul(positive * line.lower, negative, line.upper)
    return (found if shift is None else found + shift), added


def chosen(line: Held, coefficients: Tensor, z: Tensor) -> Tensor:
    """The values at z of the lines that coefficients took, [rows, *shape]."""
    code = _code(coefficients, z, *line.tensors) if line.lower_intercept is None else None
    if code is not None:
        out = torch.empty_like(coefficients, memory_format=torch.contiguous_format)
        _run(code.value, coefficients, [coefficients, z, line.lower, line.upper, line.intercept], [out, None])
        return out
    below = z * line.lower
    if line.lower_intercept is not None:
        below = below + line.lower_intercept
    return torch.where(coefficients < 0, torch.addcmul(line.intercept, z, line.upper), below)


def corner(rows: Tensor, center: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The least value of forms on boxes [rows], and the corners where they have it, [rows, *input_shape]."""
    code = _code(rows, center, radius)
    if code is not None:
        out, added = torch.empty_like(rows, memory_format=torch.contiguous_format), rows.new_empty(len(rows))
        _run(code.corner, rows, [rows, None, center, radius, None], [out, added])
        return added, out
    return weighted(rows, center) - weighted(rows.abs(), radius), center - rows.sign() * radius


def weighted(rows: Tensor, x: Tensor) -> Tensor:
    """Sums of products over a layer, [rows]; x is [rows or 1, *shape] or broadcast to the layer."""
    shape = rows.shape[1:]
    layer = x if x.dim() > len(shape) else x.expand(shape)[None]
    return contract(rows.flatten(1)[:, None], layer.flatten(1))[:, 0]


def step(
    coefficients: Tensor,
    z: Tensor,
    free: Tensor,
    signs: Tensor | None,
    moved: Sequence[Tensor],
    factors: tuple[float, float],
) -> None:
    """A step of Adam in place, on one activation's columns, where `covers` says that there is code for it.

    Args:
        coefficients: Of its outputs, [rows, columns].
        z: Its inputs' values, [rows, columns].
        free: One where a slope is, [rows or 1, columns].
        signs: Decisions, [rows, columns]; None where nothing is split.
        moved: Slopes with their mean and square, then the same of multipliers; all [rows, columns] in one layout.
        factors: Of the step of slopes and of multipliers.
    """
    code = fused(coefficients.dtype)
    assert code is not None
    slopes, mean, square, multipliers, other_mean, other_square = (*moved, None, None, None)[:6]
    pointers = [slopes, multipliers, mean, square, other_mean, other_square]
    masks = [free, signs]
    _run(code.step, coefficients, [coefficients, z, None, None, None], [None, None], masks, pointers, factors)


def covers(first: Tensor, *others: Tensor) -> bool:
    """Whether there is compiled code for tensors."""
    return _code(first, *others) is not None


def _code(first: Tensor, *others: Tensor) -> Fused | None:
    tensors = (first, *others)
    if first.device.type != "cpu" or any(x.dtype != first.dtype for x in tensors) or is_transformed(*tensors):
        return None
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
        return None
    return fused(first.dtype)


def _run(
    entry: Pass,
    first: Tensor,
    read: Sequence[Tensor | None],
    written: Sequence[Tensor | None],
    masks: Sequence[Tensor | None] = (None, None),
    moved: Sequence[Tensor | None] = (None,) * 6,
    factors: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Calls the code with the structure `Fused` of fused.c; every tensor is compared with what will be read of it."""
    rows, shape = len(first), first.shape[1:]
    count = shape.numel()
    kept = [None if x is None else _rows(x, rows, shape) for x in (*read, *masks)]
    numbers = [rows, count]
    for x in kept[:5]:
        numbers += _operand(x)
    numbers += [0 if x is None else x.data_ptr() for x in written]
    for x in kept[5:]:
        numbers += _operand(x)
    own = 0
    for x in moved:
        if x is not None:
            if x.shape != first.shape or x.dtype != first.dtype or x.stride(1) != 1 or (own and x.stride(0) != own):
                raise ValueError(f"a step moves tensors {list(first.shape)} of one layout, got {list(x.shape)}")
            own = x.stride(0)
    numbers += [0 if x is None else x.data_ptr() for x in moved] + [own]
    task = np.empty(len(numbers) + 5, dtype=np.int64)
    task[:-5] = numbers
    task[-5:].view(np.float64)[:] = (*factors, MOMENTUM, SCALE, TINY)
    threads = torch.get_num_threads() if rows * count >= ALONE else 1
    entry(ctypes.c_void_p(task.ctypes.data), threads, parallel())


def _rows(x: Tensor, rows: int, shape: torch.Size) -> Tensor:
    """A tensor whose rows are contiguous."""
    if x.shape[1:] != shape:
        x = x.expand(len(x), *shape)
    if len(x) not in (1, rows):
        raise ValueError(f"rows must be {rows} or 1, got {len(x)}")
    return x if x.is_contiguous() or (len(x) and x[0].is_contiguous()) else x.contiguous()


def _operand(x: Tensor | None) -> tuple[int, int]:
    """Address, and numbers from one row to the next; none where all share one."""
    return (0, 0) if x is None else (x.data_ptr(), 0 if len(x) == 1 else x.stride(0))
