"""Runs a program in the compiled code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certtrain.bounds.fused.build import Compiled, compiled
from certtrain.bounds.fused.program import Program
from certtrain.bounds.fused.steps import PRODUCTS
from certtrain.bounds.reach import Reach

# int64 numbers of a Step in task.h: its kind, three operands of three, layer, window and halo, three gradients of three
# (from GRADIENTS on), and the transposed weights.
STEP = 30
GRADIENTS = 20


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


def substitute(
    job: Job, start: Tensor, constant: Tensor, operands: list[Tensor], wanted: Tensor | None = None
) -> Tensor:
    """Lower bounds [rows]; differentiable once, or under `torch.func.vmap`.

    Args:
        job: What to do.
        start: Starting forms [batch or 1, forms, elements of a patch or layer], channels last.
        constant: What was already added to each, [batch or 1, forms].
        operands: See `program.operands`.
        wanted: Which rows to bound, [rows], by numbers that are not zero; the others' bounds are zero. All by default.

    Raises:
        MemoryError: If there is not enough of it for a few rows.
    """
    return _Substitute.apply(job, wanted, start, constant, *operands)


class _Substitute(torch.autograd.Function):
    """The derivatives are compiled, too; the members of a population become rows of one call."""

    @staticmethod
    def forward(job: Job, wanted: Tensor | None, *tensors: Tensor) -> Tensor:
        chosen = None if wanted is None else (wanted.contiguous(), False)
        return _bound(job, chosen, [(x.contiguous(), False) for x in tensors], members=1)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.job = inputs[0]
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_lower: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_differentiate(ctx.job, [x.contiguous() for x in ctx.saved_tensors], by_lower.contiguous())

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], job: Job, wanted: Tensor | None, *tensors: Tensor
    ) -> tuple[Tensor, int]:
        chosen = None if wanted is None else _with_members(wanted, in_dims[1])
        moved = [_with_members(x, d) for x, d in zip(tensors, in_dims[2:], strict=True)]
        return _bound(job, chosen, moved, info.batch_size), 0


# A tensor, and whether its first axis are the members of a population.
Given = tuple[Tensor, bool]


def _with_members(x: Tensor, axis: int | None) -> Given:
    return (x.contiguous(), False) if axis is None else (x.movedim(axis, 0).contiguous(), True)


def _bound(job: Job, wanted: Given | None, tensors: list[Given], members: int) -> Tensor:
    """Lower bounds [members, rows]."""
    _check([x for x, _ in tensors])
    start = tensors[0][0]
    lower = torch.empty((members, len(job.rows)), dtype=start.dtype)
    if lower.numel():
        steps = _steps(job.program, tensors[2:])
        task = [*_task(job, wanted, tensors, steps, members), lower.data_ptr(), 0, 0, 0, 0, 0, 0, 0]
        _run(_compiled(start.dtype).bound, task, torch.get_num_threads())
    return lower


def _differentiate(job: Job, tensors: list[Tensor], by_lower: Tensor) -> list[Tensor]:
    """Derivatives in the start, the constants and the operands."""
    # Images are dealt out whole: more threads than images would have nothing to do.
    threads = min(torch.get_num_threads(), max(1, len(job.rows.image.unique())))
    operands = [operand for step in job.program.steps for operand in step.operands]
    per_image = [True, True, *(operand.per_image for operand in operands)]
    # Of what all images share every thread adds up its own.
    shared = [not images or len(x) == 1 for x, images in zip(tensors, per_image, strict=True)]
    found = [
        x.new_zeros((threads, *x.shape)) if s else torch.zeros_like(x) for x, s in zip(tensors, shared, strict=True)
    ]
    if len(job.rows):
        given = [(x, False) for x in tensors]
        steps, transposed = _steps(job.program, given[2:]), []
        entries = [_gradient(g, s) for g, s in zip(found, shared, strict=True)]
        left = iter(zip(entries[2:], tensors[2:], strict=True))
        for row, step in zip(steps, job.program.steps, strict=True):
            for i in range(len(step.operands)):
                entry, operand = next(left)
                row[GRADIENTS + 3 * i : GRADIENTS + 3 * i + 3] = entry
                if step.kind in PRODUCTS:
                    transposed.append(operand.mT.contiguous())
                    row[-1] = transposed[-1].data_ptr()
        task = [*_task(job, None, given, steps, members=1), 0, by_lower.data_ptr(), *entries[0], *entries[1]]
        _run(_compiled(by_lower.dtype).differentiate, task, threads)
    return [g.sum(0) if s else g for g, s in zip(found, shared, strict=True)]


def _check(tensors: list[Tensor]) -> None:
    """What follows hands out addresses: nothing else may be there than numbers of one kind.

    Raises:
        TypeError: If there is.
    """
    kinds = {(x.dtype, x.device.type) for x in tensors}
    if kinds != {(tensors[0].dtype, "cpu")}:
        raise TypeError(
            f"compiled bounds need tensors of one floating-point type on the CPU, got {sorted(map(str, kinds))}"
        )


def _compiled(dtype: torch.dtype) -> Compiled:
    code = compiled(dtype)
    assert code is not None
    return code


def _run(entry: Callable[[ctypes.c_void_p, int], int], task: list[int], threads: int) -> None:
    numbers = np.array(task, dtype=np.int64)
    if entry(ctypes.c_void_p(numbers.ctypes.data), threads):
        raise MemoryError("no memory for a few rows of back-substitution")


def _task(job: Job, wanted: Given | None, tensors: list[Given], steps: np.ndarray, members: int) -> list[int]:
    """The numbers of a Task in task.h, up to where results go."""
    rows, program, (start, _) = job.rows, job.program, tensors[0]
    threads = torch.get_num_threads()
    block = max(1, min(program.rows_at_once(start.element_size()), job.most_rows // threads))
    return [
        *(steps.ctypes.data, len(steps), *_operand(*tensors[0], True), *_operand(*tensors[1], True)),
        *_grid(job, start),
        *(rows.image.data_ptr(), rows.position.data_ptr(), rows.form.data_ptr()),
        *((0, 0, 0) if wanted is None else _operand(*wanted, False)),
        *(len(rows), members, block, program.space),
    ]


def _steps(program: Program, operands: list[Given]) -> np.ndarray:
    """The steps as numbers [steps, STEP]; the tensors must live as long as these are used."""
    numbers = np.zeros((len(program.steps), STEP), dtype=np.int64)
    given = iter(operands)
    for row, step in zip(numbers, program.steps, strict=True):
        layer = step.layer
        row[0] = step.kind
        for i, operand in enumerate(step.operands):
            row[1 + 3 * i : 4 + 3 * i] = _operand(*next(given), operand.per_image)
        row[10:GRADIENTS] = (layer.height, layer.width, layer.channels, *step.window, step.halo)
    return numbers


def _operand(x: Tensor, has_members: bool, per_image: bool) -> tuple[int, int, int]:
    """Address, and numbers from one member and from one image to the next; zero where they share it."""
    size = x[0].numel() if has_members else x.numel()
    images = x.shape[int(has_members)]
    return x.data_ptr(), size * has_members, size // images if per_image and images > 1 else 0


def _gradient(x: Tensor, is_shared: bool) -> tuple[int, int, int]:
    """Address, and numbers from one thread's and from one image's derivatives to the next."""
    size = x[0].numel()
    return x.data_ptr(), size if is_shared else 0, 0 if is_shared else size


def _grid(job: Job, start: Tensor) -> tuple[int, ...]:
    """The starting rows: their patch, the layer, and where each position's patch begins."""
    layer, reach = job.program.layer, job.reach
    stored = (layer.height, layer.width) if reach is None else reach.kernel
    channels = start.shape[-1] // (stored[0] * stored[1])
    columns, stride, padding = (1, (0, 0), (0, 0)) if reach is None else (reach.grid[1], reach.stride, reach.padding)
    return (*stored, channels, layer.height, layer.width, layer.channels, job.program.halo, columns, *stride, *padding)
