"""Back-substitution: linear forms carried from any operation back to the input (CROWN, DeepPoly).

Only lower bounds are computed; the upper bound of a row is minus the lower bound of its negative. Executors take all
rows of a bound through this, a piece at a time, or do the same in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from certtrain.bounds.rows.dense import Operators, Rows
from certtrain.bounds.rows.passage import Linearization, Passage
from certtrain.bounds.rows.patches import back
from certtrain.bounds.rows.reach import Where
from certtrain.bounds.rows.selection import Forms
from certtrain.deadline import check_deadline
from certtrain.networks.ops import Activation, Add, LinearMap, Op
from certtrain.networks.rules import Rules


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


@dataclass
class _Way:
    """One chunk of rows between the operations that it has passed and those before it."""

    passage: Passage
    linearization: Linearization
    operators: Operators
    forms: int
    constant: Tensor | None

    def add(self, added: Tensor) -> None:
        """To the constants [groups or 1, k]; rows that were regrouped on the way add [images, positions · k].

        Of two branches only one may have been regrouped, and the one that was not may still serve all images.
        """
        added = added.reshape(-1, self.forms)
        self.constant = added if self.constant is None else self.constant + added

    def activation(self, index: int, op: Activation, rows: Rows) -> Rows:
        rows, added = rows.activation(self.linearization.lines[index], op.function.group)
        self.add(added)
        return rows

    def linear(self, index: int, op: LinearMap, rows: Rows) -> Rows:
        anchor = self.passage.anchor
        if index == anchor.center_index:
            self.add(rows.value(anchor.center))
        elif index > anchor.center_index and (offset := op.offset(self.passage.values)) is not None:
            self.add(rows.offset(offset))
        return rows.linear(op, self.operators)


# The rows in an operation's output -> the rows in the output of each that it reads.
BACKWARD: Rules[Callable[..., Rows]] = Rules(
    "back-substitution",
    {Add: lambda way, index, op, rows: rows, Activation: _Way.activation, LinearMap: _Way.linear},
)


def carry(
    passage: Passage,
    carried: Carried,
    linearization: Linearization,
    operators: Operators,
    *,
    until: int | None = None,
    shared: bool = False,
) -> Carried:
    """Carries rows back to an operation at or before `until` (the anchor where none is given).

    With `shared`, only as far as they serve all images and positions.
    """
    way = _Way(passage, linearization, operators, carried.forms, carried.constant)
    pending = dict(carried.pending)
    until = passage.anchor.index if until is None else until
    while (index := max(pending)) > until:
        op = passage.graph.ops[index]
        rule = BACKWARD.of(index, op)
        if shared and (index in _own(passage, linearization) or not _keeps_serving_all(pending[index], op)):
            break
        rows = pending.pop(index)
        if index in linearization.shifts:
            rows = rows.plus(linearization.shifts[index])
        before = rule(way, index, op, rows)
        for i in op.inputs:
            pending[i] = pending[i] + before if i in pending else before
    return Carried(pending, way.constant)


def _own(passage: Passage, linearization: Linearization) -> tuple[int, ...]:
    """Operations where images become different."""
    return (passage.anchor.center_index, *linearization.shifts)


def _keeps_serving_all(rows: Rows, op: Op) -> bool:
    """Whether one group of forms stands for all images and positions on both sides of an operation."""
    if not isinstance(op, LinearMap) or not rows.serves_all:
        return False
    return rows.reach is None or back(rows.reach, op) is not None


def lower_bounds(
    passage: Passage, start: Carried, where: Where, forms: Forms, linearization: Linearization, operators: Operators
) -> Tensor:
    """Lower bounds [groups, k] of one chunk, if there is time for it."""
    check_deadline()
    anchor, chunk = passage.anchor, start.select(where, forms)
    done = carry(passage, chunk, linearization, operators)
    rows = done.pending[anchor.index]
    way = _Way(passage, linearization, operators, chunk.forms, done.constant)
    if anchor.center_index == anchor.index:
        way.add(rows.value(anchor.center))
    way.add(-rows.spread(anchor.radius))
    assert way.constant is not None
    return way.constant
