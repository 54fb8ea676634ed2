"""Where envelopes may be: ReLUs behind matrices, on the box of one image, and what bounds of it they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from certtrain.activations import Interval, ReLU
from certtrain.bounds.optimised.envelopes import Neurons
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Part, Space
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Activation, Add, Input, Linear, Reshape

# What sums of float64 may be off by, relative to the sum of all that is added.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Envelopable:
    """A box's layers that can have envelopes: ReLUs behind matrices, sums of them among these.

    What these need is made when it is first asked for: most boxes are answered without.

    Attributes:
        region: The network, float64, one row.
        space: Columns of its neurons.
        hidden: Operation that an activation reads -> bounds, float64, [1, *shape].
    """

    region: Region
    space: Space
    hidden: Mapping[int, Interval]

    @cached_property
    def neurons(self) -> tuple[Neurons, ...]:
        """Of each of these layers, float64."""
        return tuple(self._neurons(part, matrices) for part, matrices in self._parts)

    @cached_property
    def weight_count(self) -> int:
        """How many weights they have, zeros included: what `neurons` and envelopes take is so many times a constant."""
        ops = self.region.graph.ops
        return sum(
            (ops[part.activation].size if part.elements is None else len(part.elements)) * ops[source].size
            for part, matrices in self._parts
            for source in {matrix.inputs[0] for matrix in matrices}
        )

    @cached_property
    def _parts(self) -> list[tuple[Part, list[Linear]]]:
        """Parts of the space, and what their layer is the sum of."""
        graph = self.region.graph
        found = [(part, _matrices(graph, part.read)) for part in self.space.parts if _is_relu(graph, part.activation)]
        return [(part, own) for part, own in found if own and all(self._range(m.inputs[0]) is not None for m in own)]

    def _neurons(self, part: Part, matrices: list[Linear]) -> Neurons:
        graph, values = self.region.graph, self.region.values
        every = slice(None) if part.elements is None else part.elements
        weights: dict[int, Tensor] = {}
        bias = self.region.center.new_zeros(graph.ops[part.activation].size)[every]
        for matrix in matrices:
            source = matrix.inputs[0]
            weights[source] = weights.get(source, 0) + values[matrix.weight][every]
            bias = bias if matrix.bias is None else bias + values[matrix.bias][every]
        ranges = [range_ for source in weights if (range_ := self._range(source)) is not None]
        index, weight = _packed(torch.cat(list(weights.values()), dim=1))
        ends = [torch.cat([getattr(r, end).flatten() for r in ranges])[index] * weight for end in ("lower", "upper")]
        least, most = torch.minimum(*ends), torch.maximum(*ends)
        room = ROUNDING * (bias.abs() + (least.abs() + most.abs()).sum(1))
        sources = tuple((source, graph.ops[source].size) for source in weights)
        return Neurons(part, sources, index, weight, least, most, bias, room)

    def _range(self, index: int) -> Interval | None:
        """Bounds of what an operation makes, where they are at hand."""
        op = self.region.graph.ops[index]
        if isinstance(op, Input):
            return Interval(self.region.center - self.region.radius, self.region.center + self.region.radius)
        if isinstance(op, Reshape):
            return self._range(op.inputs[0])
        if isinstance(op, Activation) and op.inputs[0] in self.hidden and op.function.element_wise:
            return op.function.image(self.hidden[op.inputs[0]])
        return None


def _packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of what is not zero in each row, and the values there, as many as the fullest row has."""
    read = weight != 0
    index = read.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : int(read.sum(1).amax())]
    return index, weight.gather(1, index)


def _is_relu(graph: Graph, index: int) -> bool:
    op = graph.ops[index]
    return isinstance(op, Activation) and isinstance(op.function, ReLU)


def _matrices(graph: Graph, index: int) -> list[Linear]:
    """Of which an operation is the sum; none where it is something else, too."""
    op = graph.ops[index]
    if isinstance(op, Linear):
        return [op]
    if isinstance(op, Add):
        terms = [_matrices(graph, i) for i in op.inputs]
        return [matrix for term in terms for matrix in term] if all(terms) else []
    return []
