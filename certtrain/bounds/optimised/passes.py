"""One pass back to the input, which bounds rows, and one forward again, which gives the bound's derivatives.

Carried back, a positive coefficient takes an activation's lower line and a negative one the upper (CROWN, Zhang et al.,
arXiv 1811.00866), or the envelope that there is in its place. The bound is the value of the network whose activations
are replaced by what was so chosen, at the corner x* of the box that minimises it. So its derivative in a lower slope is
the positive part of the coefficient times the value of the pre-activation in that network at x*, and in what is added
to rows over an operation (multipliers of split constraints, beta-CROWN, arXiv 2103.06624) that operation's value: no
tape is needed, and no product twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from certtrain.bounds.optimised.kernels import chosen, corner, follow, weighted
from certtrain.bounds.optimised.region import Envelope, Region
from certtrain.networks.ops import Activation, Add, LinearMap, Op
from certtrain.networks.rules import Rules

Tensors = Mapping[int, Tensor]
NONE: Tensors = {}


@dataclass(frozen=True)
class Start:
    """Rows over an operation's output.

    Attributes:
        index: The operation.
        data: Coefficients [rows, *shape].
        constant: What is added to each, [rows].
    """

    index: int
    data: Tensor
    constant: Tensor

    @property
    def pending(self) -> Tensors:
        """As of `Pending`."""
        return {self.index: self.data}


@dataclass(frozen=True)
class Pending:
    """Rows over what several operations make, which are still to be carried on.

    Attributes:
        pending: Operation -> coefficients of its output, [rows, *shape].
        constant: What is added to each row, [rows].
    """

    pending: Tensors
    constant: Tensor


@dataclass(frozen=True)
class Backward:
    """What a pass back found.

    Attributes:
        lower: Lower bounds [rows].
        form: The rows over the input, [rows, *input_shape], never larger than these.
        constant: What is added to them, [rows].
        corner: The points of the boxes that the bounds are the values at, [rows, *input_shape].
        coefficients: Activation -> coefficients of its output, at each of its inputs, [rows, *shape of its input].
        visited: Operations that rows passed from where they began.
    """

    lower: Tensor
    form: Tensor
    constant: Tensor
    corner: Tensor
    coefficients: Tensors
    visited: frozenset[int]


@dataclass
class _Way:
    region: Region
    shifts: Tensors
    constant: Tensor
    pending: dict[int, Tensor]
    coefficients: dict[int, Tensor] = field(default_factory=dict)

    def add(self, index: int, rows: Tensor) -> None:
        """Rows over an operation that are still to be carried on."""
        self.pending[index] = self.pending[index] + rows if index in self.pending else rows

    def take(self, index: int) -> None:
        """Carries rows over an operation on to what it reads."""
        op, rows = self.region.graph.ops[index], self.pending.pop(index)
        before = BACKWARD.of(index, op)(self, index, op, rows)
        for i in op.inputs:
            self.add(i, before)

    def activation(self, index: int, op: Activation, rows: Tensor) -> Tensor:
        line = self.region.held[index]
        rows = op.function.for_inputs(rows)
        self.coefficients[index] = rows
        found, added = follow(rows, line, self.shifts.get(index))
        self.constant = self.constant + added
        if index in self.region.envelopes:
            self._envelope(self.region.envelopes[index], rows)
        return found

    def _envelope(self, envelope: Envelope, rows: Tensor) -> None:
        taken = envelope.taken_from(rows)
        self.constant = self.constant + taken @ envelope.constant
        for source, form in envelope.forms.items():
            self.add(source, (taken @ form).reshape(-1, *self.region.graph.ops[source].shape))

    def linear(self, index: int, op: LinearMap, rows: Tensor) -> Tensor:
        offset = op.offset(self.region.values)
        if offset is not None:
            self.constant = self.constant + weighted(rows, offset)
        return op.adjoint(self.region.values, rows)


BACKWARD: Rules[Callable[..., Tensor]] = Rules(
    "optimised back-substitution",
    {Add: lambda way, index, op, rows: rows, Activation: _Way.activation, LinearMap: _Way.linear},
)


def carry(region: Region, start: Start) -> Pending:
    """As far as a pass carries rows before it meets the first activation: no line matters to that."""
    way = _Way(region, NONE, start.constant, dict(start.pending))
    while (index := max(way.pending)) > 0 and not isinstance(region.graph.ops[index], Activation):
        way.take(index)
    return Pending(way.pending, way.constant)


def backward(region: Region, start: Start | Pending, shifts: Tensors = NONE) -> Backward:
    """Lower bounds of rows; differentiable by autograd in everything, and under `torch.func.vmap`.

    Args:
        region: The network on the rows' boxes.
        start: The rows; there is one over the input, or an operation that depends on it.
        shifts: Activation -> what is added to rows over its inputs, [rows, *shape].

    Raises:
        UnsupportedOperation: Naming an operation that has no rule.
    """
    way, visited = _Way(region, shifts, start.constant, dict(start.pending)), set()
    while (index := max(way.pending)) > 0:
        visited.add(index)
        way.take(index)
    rows = way.pending[0]
    least, at = corner(rows, region.center, region.radius)
    return Backward(way.constant + least, rows, way.constant, at, way.coefficients, frozenset(visited))


@dataclass(frozen=True)
class _Values:
    region: Region
    coefficients: Tensors
    values: Tensors

    def activation(self, index: int, op: Activation, z: Tensor) -> Tensor:
        coefficients = self.coefficients[index]
        found = chosen(self.region.held[index], coefficients, z)
        if index in self.region.envelopes:
            found = self.region.envelopes[index].added(coefficients, found, self.values)
        return op.function.collect(found)

    def linear(self, index: int, op: LinearMap, x: Tensor) -> Tensor:
        return op.forward(self.region.values, x)


FORWARD: Rules[Callable[..., Tensor]] = Rules(
    "values between lines",
    {
        Add: lambda way, index, op, *terms: reduce(torch.add, terms),
        Activation: _Values.activation,
        LinearMap: _Values.linear,
    },
)


def forward(region: Region, found: Backward) -> dict[int, Tensor]:
    """Values [rows, *shape] of every operation that rows passed, at their corners, by the lines that they chose."""
    values = {0: found.corner}
    way = _Values(region, found.coefficients, values)
    for index in sorted(found.visited):
        op: Op = region.graph.ops[index]
        values[index] = FORWARD.of(index, op)(way, index, op, *(values[i] for i in op.inputs))
    return values
