"""What bounds are symmetric around where every ReLU lies between parallel lines (HBox, zonotopes).

A row then has a lower bound as far below its value at the middle as its upper bound is above, so that one of them and a
single forward pass give both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from certtrain.bounds.backsubstitution import Lines
from certtrain.bounds.base import Box
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Add, Input, LinearMap, ReLU, Values


@dataclass(frozen=True)
class Middle:
    """The box's centre, carried forward halfway between the lines.

    Attributes:
        graph: The network.
        values: Parameters and buffers.
        box: The inputs.
        found: Index -> the operation's value [batch, *shape].
    """

    graph: Graph
    values: Values
    box: Box
    found: dict[int, Tensor] = field(default_factory=dict)

    def at(self, index: int, lines: Lines) -> Tensor:
        """The value of one operation, [batch, *shape]; `lines` are those of every ReLU before it."""
        for i in range(len(self.found), index + 1):
            self.found[i] = self._next(i, lines)
        return self.found[index]

    def _next(self, index: int, lines: Lines) -> Tensor:
        op = self.graph.ops[index]
        match op:
            case Input():
                return self.box.center
            case ReLU():
                line = lines[index].map(lambda x: x.movedim(-1, 1) if x.dim() == 4 else x)
                return line.lower_slope * self.found[op.inputs[0]] + line.upper_intercept / 2
            case Add():
                a, b = (self.found[i] for i in op.inputs)
                return a + b
            case LinearMap():
                return op.forward(self.values, self.found[op.inputs[0]])
        raise AssertionError(f"{op} is no operation of a graph")
