"""Back-substitution: linear forms carried from any operation back to the input (CROWN, DeepPoly).

Only lower bounds are computed; the upper bound of a row is minus the lower bound of its negative. `bulk` takes all rows
of a bound through this, a piece at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from certtrain.bounds.anchor import Anchor, find_anchor
from certtrain.bounds.base import Box
from certtrain.bounds.fused import chain, compiled
from certtrain.bounds.patches import back, wants_matrix, window_matrix
from certtrain.bounds.reach import Reach, Where
from certtrain.bounds.rows import Operators, Rows
from certtrain.bounds.selection import Forms
from certtrain.bounds.slopes import ReluLines
from certtrain.networks.graph import Graph
from certtrain.networks.kernels import is_differentiated, is_transformed
from certtrain.networks.ops import LinearMap, Op, ReLU, Values, WindowMap

Lines = Mapping[int, ReluLines]


@dataclass(frozen=True)
class Substitution:
    """What all back-substitutions of one call of a relaxation share.

    Attributes:
        graph: The network.
        values: Parameters and buffers.
        batch: Number of images.
        anchor: Where rows end.
        memory_mb: See `rows_at_once`.
    """

    graph: Graph
    values: Values
    batch: int
    anchor: Anchor
    memory_mb: int | float | None

    @staticmethod
    def of(graph: Graph, values: Values, box: Box, memory_mb: int | float | None) -> Substitution:
        """For all inputs in a box."""
        return Substitution(graph, values, len(box), find_anchor(graph, values, box), memory_mb)

    @property
    def is_transformed(self) -> bool:
        """Whether it runs inside torch.func.vmap or grad, where nothing may depend on the data."""
        return is_transformed(self.anchor.center, self.anchor.radius, *self.values.values())

    @property
    def is_recorded(self) -> bool:
        """Whether autograd records it for a backward pass."""
        tensors = (self.anchor.center, self.anchor.radius, *self.values.values())
        return torch.is_grad_enabled() and not self.is_transformed and any(t.requires_grad for t in tensors)

    @cached_property
    def compiled_from(self) -> int:
        """The last operation from which compiled code can carry rows on; the anchor where there is no such code."""
        like = self.anchor.radius
        if like.device.type != "cpu" or compiled(like.dtype) is None or is_differentiated(like, *self.values.values()):
            return self.anchor.index
        return chain(self.graph, self.anchor)

    def operators(self, reaches: Mapping[int, Reach | None]) -> Operators:
        """Linear operations, with matrices for the windows that are faster as one.

        Args:
            reaches: What the rows read of each operation.
        """
        matrices = {}
        for index, reach in reaches.items():
            op = self.graph.ops[index]
            if reach is not None and isinstance(op, WindowMap) and wants_matrix(reach, op):
                matrices[op.name, reach.kernel] = window_matrix(reach, op, self.values, self.anchor.radius)
        return Operators(self.values, matrices)

    def reaches(self, start: int, reach: Reach | None) -> dict[int, Reach | None]:
        """What rows that start with a reach in one operation's output read of each operation before it."""
        found = {start: reach}
        for index in range(start, self.anchor.index, -1):
            if index not in found:
                continue
            op = self.graph.ops[index]
            before = back(found[index], op) if isinstance(op, LinearMap) else found[index]
            for i in op.inputs:
                other = found.get(i, before)
                found[i] = None if before is None or other is None else before.union(other)
        return found


@dataclass(frozen=True)
class Carried:
    """Rows on their way: the sum over `pending` (operation -> rows in its output), plus `constant` [groups or 1, k]."""

    pending: Mapping[int, Rows]
    constant: Tensor | None = None

    @property
    def forms(self) -> int:
        """Rows of a group, k, before any of them are on their way."""
        return next(iter(self.pending.values())).data.shape[1]

    def select(self, where: Where, forms: Forms) -> Carried:
        """The rows of one chunk."""
        constant = self.constant
        if constant is not None:
            constant = constant[:, forms] if isinstance(forms, slice) else constant[0][forms]
        return Carried({i: rows.select(where, forms) for i, rows in self.pending.items()}, constant)


def carry(
    substitution: Substitution,
    carried: Carried,
    lines: Lines,
    operators: Operators,
    *,
    until: int | None = None,
    shared: bool = False,
) -> Carried:
    """Carries rows back to an operation at or before `until` (the anchor where none is given).

    With `shared`, only as far as they serve all images and positions.
    """
    graph, anchor = substitution.graph, substitution.anchor
    pending, constant, forms = dict(carried.pending), carried.constant, carried.forms
    until = anchor.index if until is None else until
    while (index := max(pending)) > until:
        current, op = pending[index], graph.ops[index]
        if shared and (index == anchor.center_index or not _keeps_serving_all(current, op)):
            break
        del pending[index]
        if isinstance(op, ReLU):
            current, added = current.relu(lines[index])
            constant = _plus(constant, added, forms)
        elif isinstance(op, LinearMap):
            if index == anchor.center_index:
                constant = _plus(constant, current.value(anchor.center), forms)
            elif (offset := op.offset(substitution.values)) is not None:
                constant = _plus(constant, current.offset(offset), forms)
            current = current.linear(op, operators)
        for i in op.inputs:
            pending[i] = pending[i] + current if i in pending else current
    return Carried(pending, constant)


def _keeps_serving_all(rows: Rows, op: Op) -> bool:
    """Whether one group of forms stands for all images and positions on both sides of an operation."""
    if not isinstance(op, LinearMap) or not rows.serves_all:
        return False
    return rows.reach is None or back(rows.reach, op) is not None


def _plus(constant: Tensor | None, added: Tensor, forms: int) -> Tensor:
    """Sum of constants [groups or 1, k]; rows that were regrouped on the way add [images, positions · k].

    Of two branches only one may have been regrouped, and the one that was not may still serve all images.
    """
    added = added.reshape(-1, forms)
    return added if constant is None else constant + added


def lower_bounds(
    substitution: Substitution, start: Carried, where: Where, forms: Forms, lines: Lines, operators: Operators
) -> Tensor:
    """Lower bounds [groups, k] of one chunk."""
    anchor = substitution.anchor
    chunk = start.select(where, forms)
    done = carry(substitution, chunk, lines, operators)
    rows = done.pending[anchor.index]
    constant, spread = done.constant, rows.spread(anchor.radius)
    if anchor.center_index == anchor.index:
        constant = _plus(constant, rows.value(anchor.center), chunk.forms)
    return _plus(constant, -spread, chunk.forms)
