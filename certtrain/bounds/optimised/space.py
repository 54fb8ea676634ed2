"""What is free to choose, numbered: one column for each neuron whose lower line may have any slope between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.networks.graph import Graph

# Share of free neurons from which all of a layer have columns: taking some out costs more than to carry the rest.
MANY = 0.4


@dataclass(frozen=True)
class Part:
    """The columns of one activation.

    Attributes:
        activation: Its index.
        read: The operation that it reads.
        elements: Which of its inputs, flattened, have a column; None for all of them.
        columns: Their place.
    """

    activation: int
    read: int
    elements: Tensor | None
    columns: slice

    def gather(self, layer: Tensor) -> Tensor:
        """[rows, *shape] -> [rows, own columns]."""
        flat = layer.flatten(1)
        return flat if self.elements is None else flat[:, self.elements]

    def spread(self, own: Tensor, base: Tensor) -> Tensor:
        """Own columns [rows, own columns] at their elements, `base` [rows or 1, *shape] at the others."""
        if self.elements is None:
            return own.reshape(len(own), *base.shape[1:])
        flat = base.flatten(1).expand(len(own), -1)
        return flat.index_copy(1, self.elements, own).reshape(len(own), *base.shape[1:])


@dataclass(frozen=True)
class Space:
    """All columns, in the order of the network."""

    parts: tuple[Part, ...]

    @staticmethod
    def of(
        graph: Graph,
        hidden: Mapping[int, Interval],
        *,
        everywhere: bool = False,
        output: int = -1,
        many: float = MANY,
    ) -> Space:
        """Columns for the neurons that are free for any image, and for others where there are few of these.

        Args:
            graph: The network.
            hidden: Operation that an activation reads -> bounds of its output, [images, *shape].
            everywhere: A column for every neuron of such an activation, where nothing may depend on the data.
            output: The operation whose rows choose; activations of which it reads nothing have no columns.
            many: Share of free neurons from which all of a layer have columns.
        """
        parts: list[Part] = []
        start, before = 0, passed(graph, output)
        for index, op in graph.activations:
            read = op.inputs[0]
            if read not in hidden or index not in before:
                continue
            free = op.function.free(hidden[read])
            if free is None:
                continue
            elements = None if everywhere else free.flatten(1).any(0).nonzero().flatten()
            if elements is not None and len(elements) >= many * free[0].numel():
                elements = None
            size = graph.ops[read].size if elements is None else len(elements)
            if size:
                parts.append(Part(index, read, elements, slice(start, start := start + size)))
        return Space(tuple(parts))

    def free(self, graph: Graph, hidden: Mapping[int, Interval], like: Tensor) -> Tensor:
        """Which columns are of free neurons, bool [images, columns]."""
        functions = {index: op.function for index, op in graph.activations}

        def mask(part: Part) -> Tensor:
            found = functions[part.activation].free(hidden[part.read])
            assert found is not None
            return found

        return self.gather(mask, like).bool()

    @property
    def size(self) -> int:
        """Number of columns."""
        return self.parts[-1].columns.stop if self.parts else 0

    def gather(self, layer: Callable[[Part], Tensor], like: Tensor) -> Tensor:
        """What stands at the columns, [rows, columns], from a function that gives each part's layer [rows, *shape]."""
        found = [part.gather(layer(part)) for part in self.parts]
        return torch.cat(found, dim=1) if found else like.new_zeros((len(like), 0))

    def split(self, columns: Tensor) -> Sequence[tuple[Part, Tensor]]:
        """Each part with its columns."""
        return [(part, columns[:, part.columns]) for part in self.parts]


def passed(graph: Graph, output: int) -> set[int]:
    """Operations that rows over an operation's output pass, that one included: not those of a parallel branch."""
    last = output % len(graph.ops)
    found = {last}
    for index in range(last, 0, -1):
        if index in found:
            found.update(graph.ops[index].inputs)
    return found
