"""Tensor operations, on any device, for all operations; the last part of the way is left to an executor that is faster.

Rows go piece by piece. When gradients are recorded, what rows compute on their way is kept if there are no more of them
than memory is there for, on a CPU one piece; else the backward pass takes every piece through it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from certtrain.bounds.executors.base import Executor
from certtrain.bounds.rows.carry import Carried, carry, lower_bounds
from certtrain.bounds.rows.descent import Descent
from certtrain.bounds.rows.selection import Listed, Piece, Selection
from certtrain.precision import full_float32


@dataclass(frozen=True)
class TensorOperations(Executor):
    """See the module.

    Attributes:
        finishers: Executors for the last part of the way; the first one that covers any of it is taken.
    """

    finishers: tuple[Executor, ...] = ()

    def covers(self, descent: Descent) -> int:
        """See `Executor`: everything."""
        return len(descent.passage.graph.ops) - 1

    def lower(self, descent: Descent, selection: Selection, wanted: Tensor | None = None) -> Tensor:
        """See `Executor`."""
        finisher, last = self._finisher(descent)
        if finisher is not None and descent.start <= last:
            return finisher.lower(descent, selection, wanted)
        job = _Job(descent, finisher, last)
        if descent.is_recorded and selection.total > descent.rows_kept(last):
            tensors, rebuild = _take_apart(job)
            return _Again.apply(selection, rebuild, *tensors)
        return job.lower(selection)

    def _finisher(self, descent: Descent) -> tuple[Executor | None, int]:
        """Who takes over, and at which operation; the anchor's where nobody does."""
        for executor in self.finishers:
            last = executor.covers(descent)
            if last is not None:
                return executor, last
        return None, descent.passage.anchor.index


@dataclass(frozen=True)
class _Job:
    """Rows on their way to an operation, where another executor may take over."""

    descent: Descent
    finisher: Executor | None
    last: int

    @property
    def piece(self) -> int:
        """Rows that fit into the memory budget."""
        return self.descent.rows_at_once(self.last)

    def pieces(self, selection: Selection) -> Iterator[list[Piece]]:
        return selection.pieces(self.piece, self.descent.like.device)

    def lower(self, selection: Selection) -> Tensor:
        """From pieces, all of which are kept for a backward pass."""
        lines = []
        for pieces in self.pieces(selection):
            found = [self.bound(piece) for piece in pieces]
            lines.append(found[0] if len(found) == 1 else torch.cat(found, dim=1))
        return lines[0] if len(lines) == 1 else torch.cat(lines)

    def bound(self, piece: Piece) -> Tensor:
        """Lower bounds [groups, k] of a piece."""
        descent, where, forms = self.descent, piece.where, piece.forms
        passage, linearization = descent.passage, descent.linearization
        if self.finisher is None:
            return lower_bounds(passage, descent.carried, where, forms, linearization, descent.operators)
        chunk = descent.carried.select(where, forms)
        done = carry(passage, chunk, linearization, descent.operators, until=self.last)
        handed, selection = _as_forms(done)
        found = self.finisher.lower(replace(descent, carried=handed), selection)
        return found.reshape(piece.groups.stop - piece.groups.start, -1)


def _as_forms(done: Carried) -> tuple[Carried, Selection]:
    """Rows of which every one is a form of its own."""
    ((index, rows),) = done.pending.items()
    data, groups, constant = rows.flat, rows.groups, done.constant
    k = data.shape[1]
    data = data.expand(len(groups[0]), *data.shape[1:]).reshape(1, -1, data.shape[2])
    if constant is not None:
        constant = constant.expand(data.shape[1] // constant.shape[1], -1).reshape(1, -1)
    image, position = (x.repeat_interleave(k) for x in groups)
    return Carried({index: rows.with_data(data)}, constant), Listed(image, position)


Rebuild = Callable[[Sequence[Tensor]], _Job]


def _take_apart(job: _Job) -> tuple[list[Tensor], Rebuild]:
    """The tensors that bounds are a function of, and the way back from others in their places."""
    descent, passage = job.descent, job.descent.passage
    names, anchor = list(passage.values), passage.anchor
    starts, constant = descent.carried.pending, descent.carried.constant
    lines = descent.linearization.tensors
    tensors = [*passage.values.values(), *lines, anchor.radius, anchor.center]
    tensors += [rows.data for rows in starts.values()] + ([] if constant is None else [constant])

    def rebuild(given: Sequence[Tensor]) -> _Job:
        left = iter(given)
        values = {name: next(left) for name in names}
        linearization = descent.linearization.rebuilt([next(left) for _ in lines])
        moved = replace(passage, values=values, anchor=replace(anchor, radius=next(left), center=next(left)))
        pending = {i: rows.with_data(next(left)) for i, rows in starts.items()}
        carried = Carried(pending, None if constant is None else next(left))
        return replace(job, descent=Descent(moved, carried, linearization, descent.reaches))

    return tensors, rebuild


class _Again(torch.autograd.Function):
    """Bounds whose backward pass computes every piece again and differentiates it."""

    @staticmethod
    def forward(ctx: Any, selection: Selection, rebuild: Rebuild, *tensors: Tensor) -> Tensor:
        ctx.selection, ctx.rebuild = selection, rebuild
        ctx.save_for_backward(*tensors)
        return rebuild(tensors).lower(selection)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_lower: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        leaves = [x.detach().requires_grad_(want) for x, want in zip(ctx.saved_tensors, wanted, strict=True)]
        # Under an autocast that the first pass was not under, rows would come out in another type.
        with torch.enable_grad(), full_float32(by_lower.device):
            job = ctx.rebuild(leaves)
            operators = job.descent.operators
            made = [m for m in operators.matrices.values() if m.requires_grad]
            own = {name: m.detach().requires_grad_(m.requires_grad) for name, m in operators.matrices.items()}
            # What pieces share is differentiated once, after all of them.
            job.descent.__dict__["operators"] = replace(operators, matrices=own)
            inputs = [x for x in (*leaves, *own.values()) if x.requires_grad]
            sums = _differentiate(job, ctx.selection, by_lower, inputs)
            if made:
                sums, by_made = sums[: -len(made)], sums[-len(made) :]
                through = torch.autograd.grad(made, inputs[: -len(made)], by_made, allow_unused=True)
                sums = [s if g is None else s + g for s, g in zip(sums, through, strict=True)]
        found = iter(sums)
        return None, None, *(next(found) if want else None for want in wanted)


def _differentiate(job: _Job, selection: Selection, by_lower: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Gradients in the inputs, piece by piece."""
    sums = [torch.zeros_like(x) for x in inputs]
    for pieces in job.pieces(selection):
        for piece in pieces:
            lower = job.bound(piece)
            found = torch.autograd.grad(lower, inputs, by_lower[piece.groups, piece.columns], allow_unused=True)
            for total, part in zip(sums, found, strict=True):
                if part is not None:
                    total += part
    return sums
