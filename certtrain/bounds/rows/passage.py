"""What all rows of one call pass through on their way from an operation to the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from certtrain.activations import Lines
from certtrain.bounds.base import Box
from certtrain.bounds.rows.anchor import Anchor, find_anchor
from certtrain.bounds.rows.dense import Operators
from certtrain.bounds.rows.patches import back, wants_matrix, window_matrix
from certtrain.bounds.rows.reach import Reach
from certtrain.networks.graph import Graph
from certtrain.networks.kernels import is_transformed
from certtrain.networks.ops import Activation, Add, LinearMap, Values, WindowMap
from certtrain.networks.rules import Rules


@dataclass(frozen=True)
class Linearization:
    """Between what every activation is held, channels last.

    Attributes:
        lines: Activation -> lines around it, [batch, *shape of its input].
        shifts: Operation that an activation reads -> what is added to rows over its output, [batch, *shape]:
            multipliers of split constraints with their signs.
    """

    lines: Mapping[int, Lines]
    shifts: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in an order that `rebuilt` knows."""
        return [x for line in self.lines.values() for x in line.tensors] + list(self.shifts.values())

    def rebuilt(self, tensors: list[Tensor]) -> Linearization:
        """The same with other tensors in their places."""
        left = iter(tensors)
        lines = {i: line.map(lambda _: next(left)) for i, line in self.lines.items()}
        return Linearization(lines, {i: next(left) for i in self.shifts})


@dataclass(frozen=True)
class Passage:
    """The network on a box.

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
    def of(graph: Graph, values: Values, box: Box, memory_mb: int | float | None) -> Passage:
        """For all inputs in a box."""
        return Passage(graph, values, len(box), find_anchor(graph, values, box), memory_mb)

    @property
    def is_transformed(self) -> bool:
        """Whether it runs inside torch.func.vmap or grad, where nothing may depend on the data."""
        return is_transformed(self.anchor.center, self.anchor.radius, *self.values.values())

    def is_recorded(self, *further: Tensor) -> bool:
        """Whether autograd records what is computed with it, and with further tensors, for a backward pass."""
        tensors = (self.anchor.center, self.anchor.radius, *self.values.values(), *further)
        return torch.is_grad_enabled() and not self.is_transformed and any(t.requires_grad for t in tensors)

    def repeated(self, times: int) -> Passage:
        """The same with every image several times, one after the other."""
        radius, center = (x.repeat_interleave(times, dim=0) for x in (self.anchor.radius, self.anchor.center))
        return replace(self, batch=self.batch * times, anchor=replace(self.anchor, radius=radius, center=center))

    def operators(self, reaches: Mapping[int, Reach | None]) -> Operators:
        """Linear operations, with matrices for the windows that are faster as one.

        Args:
            reaches: What the rows read of each operation.
        """
        matrices = {}
        for index, reach in reaches.items():
            op = self.graph.ops[index]
            if reach is not None and isinstance(op, WindowMap) and wants_matrix(reach, op):
                matrices[op, reach.kernel] = window_matrix(reach, op, self.values, self.anchor.radius)
        return Operators(self.values, matrices)

    def reaches(self, start: int, reach: Reach | None) -> dict[int, Reach | None]:
        """What rows that start with a reach in one operation's output read of each operation before it."""
        return reaches(self.graph, start, reach, self.anchor.index)


REACHES: Rules[Callable[..., Reach | None]] = Rules(
    "receptive fields",
    {
        Add: lambda op, reach: reach,
        Activation: lambda op, reach: None if reach is None else reach.of_inputs(op.function.group),
        LinearMap: lambda op, reach: back(reach, op),
    },
)


def reaches(graph: Graph, start: int, reach: Reach | None, end: int = 0) -> dict[int, Reach | None]:
    """What rows read of each operation on their way back.

    Args:
        graph: The network.
        start: The operation in whose output the rows begin.
        reach: What they read of it; None for all.
        end: The operation where they end.
    """
    found = {start: reach}
    for index in range(start, end, -1):
        if index not in found:
            continue
        op = graph.ops[index]
        before = REACHES.of(index, op)(op, found[index])
        for i in op.inputs:
            other = found.get(i, before)
            found[i] = None if before is None or other is None else before.union(other)
    return found
