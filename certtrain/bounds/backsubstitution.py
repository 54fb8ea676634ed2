"""Back-substitution: linear forms carried from any operation back to the input (CROWN, DeepPoly).

Only lower bounds are computed; the upper bound of a row is minus the lower bound of its negative. Rows are carried in
chunks; when gradients are recorded, what a chunk computes on its way is not kept but computed again in the backward
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from certtrain.bounds.affine import spec_rows
from certtrain.bounds.anchor import Anchor, find_anchor
from certtrain.bounds.base import Bounds, Box, Sides
from certtrain.bounds.chunks import Layout, rows_at_once
from certtrain.bounds.patches import back, wants_matrix, window_matrix
from certtrain.bounds.reach import Reach, Where
from certtrain.bounds.rows import DenseRows, Operators, Rows
from certtrain.bounds.slopes import ReluLines
from certtrain.networks.graph import Graph
from certtrain.networks.kernels import is_transformed
from certtrain.networks.ops import LinearMap, Op, ReLU, Values, WindowMap

Lines = Mapping[int, ReluLines]
# Forms of a chunk: a range of each group's, or indices per group.
Forms = slice | Tensor


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

    def select(self, where: Where, forms: Forms) -> Carried:
        """The rows of one chunk."""
        constant = self.constant
        if constant is not None:
            constant = constant[:, forms] if isinstance(forms, slice) else constant[0][forms]
        return Carried({i: rows.select(where, forms) for i, rows in self.pending.items()}, constant)


def carry(
    substitution: Substitution, carried: Carried, lines: Lines, operators: Operators, *, shared: bool = False
) -> Carried:
    """Carries rows back to the anchor; with `shared`, only as far as they serve all images and positions."""
    graph, anchor = substitution.graph, substitution.anchor
    pending, constant = dict(carried.pending), carried.constant
    while (index := max(pending)) > anchor.index:
        current, op = pending[index], graph.ops[index]
        if shared and (index == anchor.center_index or not _keeps_serving_all(current, op)):
            break
        del pending[index]
        if isinstance(op, ReLU):
            current, added = current.relu(lines[index])
            constant = _plus(constant, added)
        elif isinstance(op, LinearMap):
            if index == anchor.center_index:
                constant = _plus(constant, current.value(anchor.center))
            elif (offset := op.offset(substitution.values)) is not None:
                constant = _plus(constant, current.offset(offset))
            current = current.linear(op, operators)
        for i in op.inputs:
            pending[i] = pending[i] + current if i in pending else current
    return Carried(pending, constant)


def _keeps_serving_all(rows: Rows, op: Op) -> bool:
    """Whether one group of forms stands for all images and positions on both sides of an operation."""
    if not isinstance(op, LinearMap) or not rows.serves_all:
        return False
    return rows.reach is None or back(rows.reach, op) is not None


def _plus(constant: Tensor | None, added: Tensor) -> Tensor:
    """Sum of constants; where rows were regrouped on the way, [images, positions · k] is [groups, k]."""
    if constant is None:
        return added
    return constant + added.reshape(-1, constant.shape[1])


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
        constant = _plus(constant, rows.value(anchor.center))
    assert constant is not None
    return constant - spread.reshape(-1, constant.shape[1])


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be carried back in chunks.

    Attributes:
        run: (groups, forms) -> lower bounds [groups, k].
        rows: Rows that fit into the memory budget.
    """

    run: Callable[[Where, Forms], Tensor]
    rows: int


def prepare(substitution: Substitution, start: int, rows: Rows, total: int, lines: Lines) -> Prepared:
    """Carries rows as far as they serve all images, and plans the chunks.

    Args:
        substitution: The network and the box.
        start: The operation that the rows read.
        rows: Of all images.
        total: Number of rows, over all images.
        lines: Relaxation of every ReLU between the input and `start`.
    """
    reaches = substitution.reaches(start, rows.reach)
    operators = substitution.operators(reaches)
    carried = carry(substitution, Carried({start: rows}), lines, operators, shared=True)
    ahead = {i: r for i, r in reaches.items() if i <= max(carried.pending)}
    widths = [substitution.graph.ops[i].size if r is None else r.size for i, r in ahead.items()]
    like = substitution.anchor.radius
    # For a backward pass every layer's rows are kept until the end of a chunk.
    recorded = substitution.is_recorded
    width = sum(widths) if recorded else max(widths)
    at_once = rows_at_once(width, like, substitution.memory_mb, recorded)

    def run(where: Where, forms: Forms) -> Tensor:
        return lower_bounds(substitution, carried, where, forms, lines, operators)

    def run_again(where: Where, forms: Forms) -> Tensor:
        return checkpoint(run, where, forms, use_reentrant=False, preserve_rng_state=False)

    return Prepared(run_again if recorded and total > at_once else run, at_once)


def bound_all(prepared: Prepared, layout: Layout, device: torch.device) -> Tensor:
    """Lower bounds of every row of every image: [batch, positions, forms]."""
    parts = []
    for where in layout.groups(prepared.rows, device):
        pieces = [prepared.run(where, forms) for forms in layout.slices(prepared.rows)]
        parts.append(pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1))
    lower = parts[0] if len(parts) == 1 else torch.cat(parts)
    return lower.reshape(layout.batch, layout.positions, layout.forms)


def bound_rows(substitution: Substitution, spec: Tensor | None, lines: Lines, sides: Sides) -> Bounds:
    """Bounds of specification rows over the network's outputs by one back-substitution."""
    like = substitution.anchor.radius
    rows = spec_rows(substitution.graph, spec, like)
    count = rows.shape[1]
    data = rows if sides == "lower" else torch.cat([rows, -rows], dim=1)
    last = len(substitution.graph.ops) - 1
    total = substitution.batch * data.shape[1]
    prepared = prepare(substitution, last, DenseRows(data), total, lines)
    lower = bound_all(prepared, Layout(substitution.batch, 1, data.shape[1]), like.device)[:, 0]
    return Bounds(lower[:, :count], None if sides == "lower" else -lower[:, count:])
