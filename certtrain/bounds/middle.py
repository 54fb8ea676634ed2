"""What bounds are symmetric around where every ReLU lies between parallel lines (HBox, zonotopes).

A row then has a lower bound as far below its value at the middle as its upper bound is above, so that one of them and a
single forward pass give both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from certtrain.bounds.backsubstitution import Lines, Substitution
from certtrain.bounds.base import Box
from certtrain.networks.ops import Add, Input, LinearMap, ReLU


@dataclass(frozen=True)
class Middle:
    """The box's centre, carried forward halfway between the lines.

    Attributes:
        substitution: The network and the box.
        box: The box.
        found: The value [batch, *shape] of every operation so far.
    """

    substitution: Substitution
    box: Box
    found: list[Tensor] = field(default_factory=list)

    def at(self, index: int, lines: Lines) -> Tensor:
        """The value of one operation, [batch, *shape]; `lines` are those of every ReLU before it."""
        found, values = self.found, self.substitution.values
        for i in range(len(found), index + 1):
            match op := self.substitution.graph.ops[i]:
                case Input():
                    found.append(self.box.center)
                case ReLU():
                    line = lines[i].map(lambda x: x.movedim(-1, 1) if x.dim() == 4 else x)
                    found.append(line.lower_slope * found[op.inputs[0]] + line.upper_intercept / 2)
                case Add():
                    found.append(found[op.inputs[0]] + found[op.inputs[1]])
                case LinearMap():
                    found.append(op.forward(values, found[op.inputs[0]]))
        return found[index]
