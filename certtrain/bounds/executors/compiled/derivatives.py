"""Derivatives of bounds, by the compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from certtrain.bounds.executors.compiled.boundary import check_task
from certtrain.bounds.executors.compiled.build import Entry
from certtrain.bounds.executors.compiled.steps import POINTS, PRODUCTS, Kind, Step
from certtrain.bounds.executors.compiled.task import (
    GRADIENTS,
    Given,
    Job,
    header,
    laid_out,
    numbers_of_steps,
    rows_at_once,
    run,
)


def differentiate(
    entry: Entry, job: Job, tensors: list[Tensor], by_lower: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """Derivatives in the start, the constants and the operands; None for those in a box that nobody needs.

    Args:
        entry: Of the compiled code.
        job: What was bounded.
        tensors: Start, constants and operands, contiguous.
        by_lower: Derivatives in the bounds, [rows].
        needed: For each of the tensors, whether they are.
    """
    program, start = job.alone, tensors[0]
    # Images are dealt out whole: more threads than images would have nothing to do.
    threads = min(torch.get_num_threads(), max(1, len(job.rows.image.unique())))
    check_task(job, program, 1, [(x, False) for x in tensors], [(by_lower, False)])
    given = [(x, False) for x in tensors[:2]] + laid_out(program, [(x, False) for x in tensors[2:]])
    operands = [(operand, step.kind in POINTS) for step in program.steps for operand in step.operands]
    kinds = [(True, False)] * 2 + [(operand.per_image, in_box) for operand, in_box in operands]
    sums = [
        None if in_box and not need else _Sum.of(x, threads, per_image)
        for (x, _), (per_image, in_box), need in zip(given, kinds, needed, strict=True)
    ]
    if len(job.rows):
        steps, entries = numbers_of_steps(program, given[2:]), [(0, 0, 0) if s is None else s.entry for s in sums]
        transposed = _add_gradients(steps, program.steps, entries[2:], given[2:])
        sizes = 1, rows_at_once(job, start, threads), program.space, program.operations
        task = [*header(job, program, None, given, steps, start.shape[-1]), *sizes, 0, by_lower.data_ptr()]
        run(entry, [*task, *entries[0], *entries[1]], threads)
        del transposed  # until here, their addresses were in use
    found = [None if s is None else s.total for s in sums]
    trimmed = [
        None if g is None else operand.trimmed(g, x.shape)
        for g, (operand, _), x in zip(found[2:], operands, tensors[2:], strict=True)
    ]
    return [*found[:2], *trimmed]


def _add_gradients(
    numbers: np.ndarray, steps: Sequence[Step], entries: Sequence[tuple[int, int, int]], operands: Sequence[Given]
) -> list[Tensor]:
    """Adds to the steps where derivatives go, and transposed weights, which are returned to be kept alive."""
    transposed, left = [], iter(zip(entries, operands, strict=True))
    for row, step in zip(numbers, steps, strict=True):
        for i in range(len(step.operands)):
            entry, (operand, _) = next(left)
            row[GRADIENTS + 3 * i : GRADIENTS + 3 * i + 3] = entry
            if step.kind in PRODUCTS:
                matrix = operand.flatten(1) if step.kind is Kind.LINEAR else operand
                transposed.append(matrix.mT.contiguous())
                row[-1] = transposed[-1].data_ptr()
    return transposed


@dataclass(frozen=True)
class _Sum:
    """Where derivatives in a tensor are added up: of what all images share, every thread adds up its own."""

    data: Tensor
    per_thread: bool

    @staticmethod
    def of(x: Tensor, threads: int, per_image: bool) -> _Sum:
        shared = not per_image or len(x) == 1
        return _Sum(x.new_zeros((threads, *x.shape)) if shared else torch.zeros_like(x), shared)

    @property
    def entry(self) -> tuple[int, int, int]:
        """Address, and numbers from one thread's and from one image's derivatives to the next."""
        size = self.data[0].numel()
        return self.data.data_ptr(), size if self.per_thread else 0, 0 if self.per_thread else size

    @property
    def total(self) -> Tensor:
        return self.data.sum(0) if self.per_thread else self.data
