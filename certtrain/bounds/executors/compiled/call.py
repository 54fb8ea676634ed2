"""Bounds by the compiled code, as a function that autograd and `torch.func.vmap` know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from certtrain.bounds.executors.compiled.boundary import check_task
from certtrain.bounds.executors.compiled.derivatives import differentiate
from certtrain.bounds.executors.compiled.steps import Kind
from certtrain.bounds.executors.compiled.task import (
    Given,
    Job,
    code_for,
    header,
    in_bundles,
    laid_out,
    numbers_of_steps,
    rows_at_once,
    run,
)


def substitute(
    job: Job, start: Tensor, constant: Tensor, operands: list[Tensor], wanted: Tensor | None = None
) -> Tensor:
    """Lower bounds [rows]; differentiable once, or under `torch.func.vmap`.

    Args:
        job: What to do.
        start: Starting forms [batch or 1, forms, elements of a patch or layer], channels last.
        constant: What was already added to each, [batch or 1, forms].
        operands: See `program.operands`; of either program, they are the same.
        wanted: Which rows to bound, [rows], by numbers that are not zero; the others' bounds are zero. All by default.

    Raises:
        MemoryError: If there is not enough of it for a few rows.
        TypeError, ValueError: If a tensor is not what the compiled code would read, see `boundary`.
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
        tensors = [x.contiguous() for x in ctx.saved_tensors]
        return None, None, *differentiate(ctx.job, tensors, by_lower.contiguous(), ctx.needs_input_grad[2:])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], job: Job, wanted: Tensor | None, *tensors: Tensor
    ) -> tuple[Tensor, int]:
        chosen = None if wanted is None else _with_members(wanted, in_dims[1])
        moved = [_with_members(x, d) for x, d in zip(tensors, in_dims[2:], strict=True)]
        return _bound(job, chosen, moved, info.batch_size), 0


def _with_members(x: Tensor, axis: int | None) -> Given:
    return (x.contiguous(), False) if axis is None else (x.movedim(axis, 0).contiguous(), True)


def _bound(job: Job, wanted: Given | None, tensors: list[Given], members: int) -> Tensor:
    """Lower bounds [members, rows]."""
    (start, has_members), threads = tensors[0], torch.get_num_threads()
    lower = torch.empty((members, len(job.rows)), dtype=start.dtype)
    if not lower.numel():
        return lower
    program, elements = job.program(job.bundle), start.shape[-1]
    check_task(job, program, members, tensors, [] if wanted is None else [wanted])
    constant, code = tensors[1], code_for(job.bundle, start.dtype)
    if job.bundle is None:
        entry, block = code.bound, rows_at_once(job, start, threads)
    else:
        if program.steps[0].kind is Kind.LINES:
            constant = _unless_finite(*tensors[:2])
        entry, block, start = code.bound_bundles, job.bundle, in_bundles(start, job.bundle)
    given = [(start, has_members), constant, *laid_out(program, tensors[2:])]
    steps = numbers_of_steps(program, given[2:])
    task = header(job, program, wanted, given, steps, elements)
    sizes = members, block, program.space, program.operations
    run(entry, [*task, *sizes, lower.data_ptr(), 0, 0, 0, 0, 0, 0, 0], threads)
    return lower


def _unless_finite(start: Given, constant: Given) -> Given:
    """The constants, NaN for forms that are not finite: bundles do not load what a ReLU blocks at once."""
    (forms, members), (added, also) = start, constant
    return (added + 0 * torch.maximum(forms.amax(-1), -forms.amin(-1))).contiguous(), members or also
