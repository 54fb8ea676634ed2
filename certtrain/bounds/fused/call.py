"""Runs a program in the compiled code."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certtrain.bounds.fused.build import compiled
from certtrain.bounds.fused.program import Program
from certtrain.bounds.reach import Reach

# int64 numbers of a Step in substitute.c: its kind, three operands of three, and the rest.
STEP = 20


@dataclass(frozen=True)
class Rows:
    """Which rows to bound, of those that all images, or each of them, have in common.

    Attributes:
        image: [rows], int32.
        position: Of the grid, [rows], int32; zero where rows are dense.
        form: Index into the starting forms, [rows], int32.
    """

    image: Tensor
    position: Tensor
    form: Tensor

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Job:
    """What is not a tensor of floating-point numbers.

    Attributes:
        program: The steps.
        reach: Patches that the starting forms hold; None for whole layers.
        rows: What to bound.
        most_rows: Rows that may be held at a time.
    """

    program: Program
    reach: Reach | None
    rows: Rows
    most_rows: int


def substitute(job: Job, start: Tensor, constant: Tensor, operands: list[Tensor]) -> Tensor:
    """Lower bounds [rows], also under `torch.func.vmap`; not differentiable.

    Args:
        job: What to do.
        start: Starting forms [batch or 1, forms, elements of a patch or layer], channels last.
        constant: What was already added to each, [batch or 1, forms].
        operands: See `program.operands`.

    Raises:
        MemoryError: If there is not enough of it for a few rows.
    """
    return _Substitute.apply(job, start, constant, *operands)


class _Substitute(torch.autograd.Function):
    """For its vmap rule: the members of a population become rows of one call."""

    @staticmethod
    def forward(job: Job, *tensors: Tensor) -> Tensor:
        return _run(job, [(x.contiguous(), False) for x in tensors], members=1)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], job: Job, *tensors: Tensor) -> tuple[Tensor, int]:
        pairs = zip(tensors, in_dims[1:], strict=True)
        moved = [(x.contiguous(), False) if d is None else (x.movedim(d, 0).contiguous(), True) for x, d in pairs]
        return _run(job, moved, info.batch_size), 0


def _run(job: Job, tensors: list[tuple[Tensor, bool]], members: int) -> Tensor:
    """Lower bounds [members, rows]; each tensor with whether its first axis are the members."""
    start = tensors[0][0]
    code = compiled(start.dtype)
    assert code is not None
    rows = job.rows
    lower = torch.empty((members, len(rows)), dtype=start.dtype)
    if not lower.numel():
        return lower
    program, threads = job.program, torch.get_num_threads()
    block = max(1, min(program.rows_at_once(start.element_size()), job.most_rows // threads))
    steps = _steps(program, tensors[2:])
    task = np.array(
        [
            *(steps.ctypes.data, len(program.steps), *_operand(*tensors[0], True), *_operand(*tensors[1], True)),
            *_grid(job, start),
            *(rows.image.data_ptr(), rows.position.data_ptr(), rows.form.data_ptr()),
            *(len(rows), members, block, program.space, lower.data_ptr()),
        ],
        dtype=np.int64,
    )
    if code.run(ctypes.c_void_p(task.ctypes.data), threads):
        raise MemoryError(f"no memory for {block} rows of back-substitution")
    return lower


def _steps(program: Program, operands: list[tuple[Tensor, bool]]) -> np.ndarray:
    """The steps as numbers [steps, STEP]; the tensors must live as long as these are used."""
    numbers = np.zeros((len(program.steps), STEP), dtype=np.int64)
    given = iter(operands)
    for row, step in zip(numbers, program.steps, strict=True):
        layer = step.layer
        row[0] = step.kind
        for i, operand in enumerate(step.operands):
            row[1 + 3 * i : 4 + 3 * i] = _operand(*next(given), operand.per_image)
        row[10:] = (layer.height, layer.width, layer.channels, *step.window, step.halo)
    return numbers


def _operand(x: Tensor, has_members: bool, per_image: bool) -> tuple[int, int, int]:
    """Address, and numbers from one member and from one image to the next; zero where they share it."""
    size = x[0].numel() if has_members else x.numel()
    images = x.shape[int(has_members)]
    return x.data_ptr(), size * has_members, size // images if per_image and images > 1 else 0


def _grid(job: Job, start: Tensor) -> tuple[int, ...]:
    """The starting rows: their patch, the layer, and where each position's patch begins."""
    layer, reach = job.program.layer, job.reach
    stored = (layer.height, layer.width) if reach is None else reach.kernel
    channels = start.shape[-1] // (stored[0] * stored[1])
    columns, stride, padding = (1, (0, 0), (0, 0)) if reach is None else (reach.grid[1], reach.stride, reach.padding)
    return (*stored, channels, layer.height, layer.width, layer.channels, job.program.halo, columns, *stride, *padding)
