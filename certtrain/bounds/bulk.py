"""All rows of one bound: by the compiled code where it knows the way, elsewhere piece by piece with tensor operations.

When gradients are recorded, what rows compute on their way is kept for one piece at most: with more of them, the
backward pass takes every piece through it again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from certtrain.bounds import fused
from certtrain.bounds.affine import spec_rows
from certtrain.bounds.backsubstitution import Carried, Lines, Substitution, carry, lower_bounds
from certtrain.bounds.base import Bounds, Sides
from certtrain.bounds.chunks import rows_at_once
from certtrain.bounds.reach import Reach
from certtrain.bounds.rows import DenseRows, Operators
from certtrain.bounds.selection import All, Piece, Selection
from certtrain.bounds.slopes import ReluLines


@dataclass(frozen=True)
class Bulk:
    """Rows ready to be carried back.

    Attributes:
        substitution: The network and the box.
        carried: The rows, as far as they serve all images.
        lines: Relaxation of every ReLU on their way.
        reaches: What they read of every operation on their way.
    """

    substitution: Substitution
    carried: Carried
    lines: Lines
    reaches: dict[int, Reach | None]

    @staticmethod
    def of(substitution: Substitution, start: Carried, lines: Lines) -> Bulk:
        """Carries rows as far as they serve all images.

        Args:
            substitution: The network and the box.
            start: The rows of all images, in one operation's output.
            lines: Relaxation of every ReLU between the input and that operation.

        Raises:
            ConfigError: If the memory budget is too small for one row.
        """
        ((index, rows),) = start.pending.items()
        reaches = substitution.reaches(index, rows.reach)
        carried = carry(substitution, start, lines, Operators(substitution.values), shared=True)
        bulk = Bulk(substitution, carried, lines, {i: r for i, r in reaches.items() if i <= max(carried.pending)})
        bulk._rows_at_once(0)  # refuses a budget before anything is computed
        return bulk

    @cached_property
    def piece(self) -> int:
        """Rows that fit into the memory budget."""
        return self._rows_at_once(0)

    @property
    def compiled_piece(self) -> int:
        """Rows that compiled code may hold; without a budget it keeps to the cache by itself, in every thread."""
        return sys.maxsize if self.substitution.memory_mb is None else self.piece

    def _rows_at_once(self, last: int) -> int:
        """Rows that fit into the budget on their way to an operation."""
        ops = self.substitution.graph.ops
        widths = [ops[i].size if r is None else r.size for i, r in self.reaches.items() if i >= last]
        # For a backward pass every layer's rows are kept until the end of a piece.
        recorded = self.substitution.is_recorded
        width = sum(widths) if recorded else max(widths)
        return rows_at_once(width, self.substitution.anchor.radius, self.substitution.memory_mb, recorded)

    @cached_property
    def operators(self) -> Operators:
        """Linear operations in the forms that are fastest for these rows."""
        return self.substitution.operators(self.reaches)

    @property
    def is_compiled(self) -> bool:
        """Whether the compiled code knows at least the end of the way."""
        return self.substitution.compiled_from > self.substitution.anchor.index

    def lower(self, selection: Selection, wanted: Tensor | None = None) -> Tensor:
        """Lower bounds [groups, k] of a selection of the rows; differentiable.

        Args:
            selection: The rows.
            wanted: Which of them matter, [groups, k]; the others' bounds may be anything.
        """
        last = self.substitution.compiled_from
        if self.is_compiled and max(self.carried.pending) <= last:
            return self._call(self.carried, selection.indices(), wanted).reshape(selection.shape)
        piece = self._rows_at_once(last)
        if self.substitution.is_recorded and selection.total > piece:
            tensors, rebuild = _take_apart(self)
            return _Again.apply(selection, rebuild, *tensors)
        return self.assemble(selection)

    def assemble(self, selection: Selection) -> Tensor:
        """The same from pieces, all of which are kept for a backward pass."""
        lines = []
        for pieces in self.pieces(selection):
            found = [self.bound_piece(piece) for piece in pieces]
            lines.append(found[0] if len(found) == 1 else torch.cat(found, dim=1))
        return lines[0] if len(lines) == 1 else torch.cat(lines)

    def pieces(self, selection: Selection) -> Iterator[list[Piece]]:
        """What fits into the memory budget; the compiled code keeps to it by itself."""
        return selection.pieces(
            self._rows_at_once(self.substitution.compiled_from), self.substitution.anchor.radius.device
        )

    def bound_piece(self, piece: Piece) -> Tensor:
        """Lower bounds [groups, k] of a piece: by tensor operations down to where the compiled code takes over."""
        if not self.is_compiled:
            return lower_bounds(self.substitution, self.carried, piece.where, piece.forms, self.lines, self.operators)
        substitution, chunk = self.substitution, self.carried.select(piece.where, piece.forms)
        done = carry(substitution, chunk, self.lines, self.operators, until=substitution.compiled_from)
        ((index, rows),) = done.pending.items()
        constant = done.constant
        data, groups = rows.flat, rows.groups
        k = data.shape[1]
        # Every row is a form of its own from here on.
        data = data.expand(len(groups[0]), *data.shape[1:]).reshape(1, -1, data.shape[2])
        if constant is not None:
            constant = constant.expand(data.shape[1] // constant.shape[1], -1).reshape(1, -1)
        image, position = (x.to(torch.int32).repeat_interleave(k) for x in groups)
        form = torch.arange(data.shape[1], dtype=torch.int32)
        start = Carried({index: rows.with_data(data)}, constant)
        found = self._call(start, fused.Rows(image, position, form))
        return found.reshape(piece.groups.stop - piece.groups.start, -1)

    def _call(self, carried: Carried, rows: fused.Rows, wanted: Tensor | None = None) -> Tensor:
        """Lower bounds [rows] by the compiled code."""
        ((index, start),) = carried.pending.items()
        # Under autocast rows and operands may have come out in other types than the box.
        like = self.substitution.anchor.radius
        substitution, data = self.substitution, start.flat.to(like.dtype)
        code = fused.compiled(data.dtype)
        assert code is not None
        most = self.compiled_piece
        bundle = fused.bundle_size(rows, fused.bundlers(data.dtype), most // torch.get_num_threads())
        job = fused.Job(substitution.graph, substitution.anchor, index, start.reach, rows, bundle, code.lanes, most)
        given = fused.Operands(substitution.values, self.lines, substitution.anchor)
        operands = [x.to(data.dtype) for x in fused.operands(job.program, given)]
        constant = data.new_zeros((1, data.shape[1])) if carried.constant is None else carried.constant.to(data.dtype)
        chosen = None if wanted is None else wanted.to(data.dtype).flatten()
        return fused.substitute(job, data, constant, operands, chosen)


Rebuild = Callable[[Sequence[Tensor]], Bulk]


def _take_apart(bulk: Bulk) -> tuple[list[Tensor], Rebuild]:
    """The tensors that bounds are a function of, and the way back from others in their places."""
    names, indices = list(bulk.substitution.values), list(bulk.lines)
    starts, constant = bulk.carried.pending, bulk.carried.constant
    lines = [x for i in indices for x in (bulk.lines[i].lower_slope, bulk.lines[i].gap, bulk.lines[i].upper_intercept)]
    anchor = bulk.substitution.anchor
    tensors = [*bulk.substitution.values.values(), *lines, anchor.radius, anchor.center]
    tensors += [rows.data for rows in starts.values()] + ([] if constant is None else [constant])

    def rebuild(given: Sequence[Tensor]) -> Bulk:
        left = iter(given)
        values = {name: next(left) for name in names}
        new_lines = {i: ReluLines(next(left), next(left), next(left)) for i in indices}
        new_anchor = replace(anchor, radius=next(left), center=next(left))
        substitution = replace(bulk.substitution, values=values, anchor=new_anchor)
        pending = {i: rows.with_data(next(left)) for i, rows in starts.items()}
        carried = Carried(pending, None if constant is None else next(left))
        return Bulk(substitution, carried, new_lines, bulk.reaches)

    return tensors, rebuild


class _Again(torch.autograd.Function):
    """Bounds whose backward pass computes every piece again and differentiates it."""

    @staticmethod
    def forward(ctx: Any, selection: Selection, rebuild: Rebuild, *tensors: Tensor) -> Tensor:
        ctx.selection, ctx.rebuild = selection, rebuild
        ctx.save_for_backward(*tensors)
        return rebuild(tensors).assemble(selection)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_lower: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        leaves = [x.detach().requires_grad_(want) for x, want in zip(ctx.saved_tensors, wanted, strict=True)]
        with torch.enable_grad():
            bulk = ctx.rebuild(leaves)
            made = [m for m in bulk.operators.matrices.values() if m.requires_grad]
            own = {name: m.detach().requires_grad_(m.requires_grad) for name, m in bulk.operators.matrices.items()}
            # What pieces share is differentiated once, after all of them.
            bulk.__dict__["operators"] = replace(bulk.operators, matrices=own)
            inputs = [x for x in (*leaves, *own.values()) if x.requires_grad]
            sums = _differentiate(bulk, ctx.selection, by_lower, inputs)
            if made:
                sums, by_made = sums[: -len(made)], sums[-len(made) :]
                through = torch.autograd.grad(made, inputs[: -len(made)], by_made, allow_unused=True)
                sums = [s if g is None else s + g for s, g in zip(sums, through, strict=True)]
        found = iter(sums)
        return None, None, *(next(found) if want else None for want in wanted)


def _differentiate(bulk: Bulk, selection: Selection, by_lower: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Gradients in the inputs, piece by piece."""
    sums = [torch.zeros_like(x) for x in inputs]
    for pieces in bulk.pieces(selection):
        for piece in pieces:
            lower = bulk.bound_piece(piece)
            found = torch.autograd.grad(lower, inputs, by_lower[piece.groups, piece.columns], allow_unused=True)
            for total, part in zip(sums, found, strict=True):
                if part is not None:
                    total += part
    return sums


def bound_rows(substitution: Substitution, spec: Tensor | None, lines: Lines, sides: Sides) -> Bounds:
    """Bounds of specification rows over the network's outputs by one back-substitution."""
    rows = spec_rows(substitution.graph, spec, substitution.anchor.radius)
    count = rows.shape[1]
    data = rows if sides == "lower" else torch.cat([rows, -rows], dim=1)
    bulk = Bulk.of(substitution, Carried({len(substitution.graph.ops) - 1: DenseRows(data)}), lines)
    lower = bulk.lower(All(substitution.batch, 1, data.shape[1]))
    return Bounds(lower[:, :count], None if sides == "lower" else -lower[:, count:])
