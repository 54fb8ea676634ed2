"""Derivatives of bounds, by the compiled code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from certtrain.bounds.executors.compiled.boundary import check_task
from certtrain.bounds.executors.compiled.steps import POINTS, PRODUCTS, Kind, Step, whole
from certtrain.bounds.executors.compiled.task import (
    GRADIENTS,
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

# The axis of weights that fills vectors in their derivatives, for rows in bundles.
IN_LANES = {Kind.CONVOLUTION: 2, Kind.THIN_CONVOLUTION: 1, Kind.LINEAR: 0}


def differentiate(job: Job, tensors: list[Tensor], by_lower: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
    """Derivatives in the start, the constants and the operands; None for those in a box that nobody needs.

    Args:
        job: What was bounded.
        tensors: Start, constants and operands, contiguous.
        by_lower: Derivatives in the bounds, [rows].
        needed: For each of the tensors, whether they are.
    """
    bundle = _bundle(job, tensors[2:])
    program, start = job.program(bundle), tensors[0]
    # Images are dealt out whole: more threads than images would have nothing to do.
    threads = min(torch.get_num_threads(), max(1, len(job.rows.image.unique())))
    check_task(job, program, 1, [(x, False) for x in tensors], [(by_lower, False)])
    operands = laid_out(program, [(x, False) for x in tensors[2:]])
    sums = [
        _Sum.of(start, threads, True) if bundle is None else _Sum.of_bundles(start, threads, bundle),
        _Sum.of(tensors[1], threads, True),
        *_sums_of_operands(program.steps, operands, threads, needed[2:], bundle),
    ]
    if len(job.rows):
        steps, entries = numbers_of_steps(program, operands), [(0, 0, 0) if s is None else s.entry for s in sums]
        transposed = _add_gradients(steps, program.steps, entries[2:], operands)
        code = code_for(bundle, start.dtype)
        rows = rows_at_once(job, start, threads) if bundle is None else bundle
        laid = start if bundle is None else in_bundles(start, bundle)
        sizes = 1, rows, program.space, program.operations
        given = [(laid, False), (tensors[1], False)]
        task = [*header(job, program, None, given, steps, start.shape[-1]), *sizes, 0, by_lower.data_ptr()]
        entry = code.differentiate if bundle is None else code.differentiate_bundles
        run(entry, [*task, *entries[0], *entries[1]], threads)
        del transposed, laid  # until here, their addresses were in use
    found = [None if s is None else s.total for s in sums]
    made = (operand for step in program.steps for operand in step.operands)
    trimmed = [
        None if g is None else operand.trimmed(g, x.shape)
        for g, operand, x in zip(found[2:], made, tensors[2:], strict=True)
    ]
    return [*found[:2], *trimmed]


def _bundle(job: Job, operands: Sequence[Tensor]) -> int | None:
    """Rows of a bundle; None where derivatives are computed for one row after the other."""
    if job.bundle is None:
        return None
    left, passing, neurons = iter(operands), 0, 0
    for step in job.bundled.steps:
        own = [next(left) for _ in step.operands]
        if step.kind is Kind.LINES:
            slope, gap, intercept = own
            passing += int(torch.count_nonzero((slope != 0) | (gap != 0) | (intercept != 0)))
            neurons += slope.numel()
    return job.bundling.of_derivatives(job.rows, job.bundle, passing / neurons if neurons else 1.0)


def _sums_of_operands(
    steps: Sequence[Step], operands: Sequence[Given], threads: int, needed: Sequence[bool], bundle: int | None
) -> list[_Sum | None]:
    """Where derivatives in operands are added up; nowhere for those in a box that nobody needs."""
    sums: list[_Sum | None] = []
    left = iter(zip(operands, needed, strict=True))
    for step in steps:
        for operand in step.operands:
            (x, _), need = next(left)
            if step.kind in POINTS and not need:
                sums.append(None)
            elif bundle is not None and step.kind in IN_LANES:
                sums.append(_Sum.of_weights(x, threads, IN_LANES[step.kind], bundle))
            else:
                sums.append(_Sum.of(x, threads, operand.per_image))
    return sums


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
    """Where derivatives in a tensor are added up: of what all images share, every thread adds up its own.

    Attributes:
        data: [threads or images, *as they are laid out].
        per_thread: Which of the two.
        restored: From the sum of all threads, or of each image, to the tensor's own layout.
    """

    data: Tensor
    per_thread: bool
    restored: Callable[[Tensor], Tensor]

    @staticmethod
    def of(x: Tensor, threads: int, per_image: bool) -> _Sum:
        """Laid out like the tensor, [batch or 1, ...] if there may be one for each image."""
        shared = not per_image or len(x) == 1
        return _Sum(x.new_zeros((threads, *x.shape)) if shared else torch.zeros_like(x), shared, lambda g: g)

    @staticmethod
    def of_bundles(start: Tensor, threads: int, lanes: int) -> _Sum:
        """Of starting forms [batch or 1, forms, elements], see `in_bundles`."""
        images, forms, elements = start.shape
        shape, shared = (images, whole(forms, lanes) // lanes, elements, lanes), images == 1
        data = start.new_zeros((threads, *shape) if shared else shape)
        return _Sum(data, shared, lambda g: g.mT.flatten(-3, -2)[..., :forms, :])

    @staticmethod
    def of_weights(x: Tensor, threads: int, axis: int, lanes: int) -> _Sum:
        """Of weights, with one axis last, which fills whole vectors."""
        size, *rest = x.shape[axis], *x.shape[:axis], *x.shape[axis + 1 :]
        data = x.new_zeros((threads, *rest, whole(size, lanes)))
        return _Sum(data, True, lambda g: g[..., :size].movedim(-1, axis))

    @property
    def entry(self) -> tuple[int, int, int]:
        """Address, and numbers from one thread's and from one image's derivatives to the next."""
        size = self.data[0].numel()
        return self.data.data_ptr(), size if self.per_thread else 0, 0 if self.per_thread else size

    @property
    def total(self) -> Tensor:
        """The derivatives in the tensor."""
        return self.restored(self.data.sum(0) if self.per_thread else self.data)
