"""A network without the neurons that are zero wherever it is looked at: the same there, with smaller matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import Linear, Op, Values


@dataclass(frozen=True)
class Cut:
    """What is left of a matrix.

    Attributes:
        weight: Name of the whole one.
        bias: Name of its bias, if it has one.
        rows: Outputs that are left; None for all.
        columns: Inputs that are left; None for all.
    """

    weight: str
    bias: str | None
    rows: Tensor | None = None
    columns: Tensor | None = None

    def taken(self, values: Values) -> tuple[Tensor, Tensor | None]:
        """The smaller weight and bias."""
        weight, bias = values[self.weight], None if self.bias is None else values[self.bias]
        if self.columns is not None:
            weight = weight[:, self.columns]
        if self.rows is not None:
            weight, bias = weight[self.rows], None if bias is None else bias[self.rows]
        return weight.contiguous(), bias


@dataclass(frozen=True)
class Pruned:
    """The smaller network; operations keep their indices.

    Attributes:
        graph: Reads the tensors that `values` makes; its module has none of their names.
        kept: Operation -> which elements of its output are left, ascending; operations that are whole are not in it.
        cuts: Matrix operation -> what is left of its matrix.
    """

    graph: Graph
    kept: Mapping[int, Tensor]
    cuts: Mapping[int, Cut]

    def values(self, values: Values) -> Params:
        """Parameters and buffers of the smaller network, from those of the whole one."""
        found = dict(values)
        for index, cut in self.cuts.items():
            op = self.graph.ops[index]
            assert isinstance(op, Linear)
            found[op.weight], bias = cut.taken(values)
            if op.bias is not None and bias is not None:
                found[op.bias] = bias
        return found

    def layer(self, index: int, x: Tensor) -> Tensor:
        """What is left of a tensor over an operation's output: [*lead, *shape] -> [*lead, *smaller shape]."""
        return x[..., self.kept[index]] if index in self.kept else x


def prune(graph: Graph, zero: Mapping[int, Tensor]) -> Pruned:
    """Takes neurons out of matrices, where their layer lies between matrices that nothing else reads.

    Everywhere else (convolutions, residual additions) they stay, which costs time and changes nothing.

    Args:
        graph: The network.
        zero: Activation -> which of its outputs are zero wherever the network is looked at, bool [*shape].
    """
    kept: dict[int, Tensor] = {}
    cuts: dict[int, Cut] = {}
    for index, outputs in zero.items():
        read = graph.ops[index].inputs[0]
        if not _between_matrices(graph, read, index) or not bool(outputs.any()):
            continue
        left = (~outputs).nonzero().flatten()
        if not len(left):  # a layer without neurons is more trouble than one neuron is
            left = left.new_zeros(1)
        kept[read] = kept[index] = left
        cuts[read] = replace(cuts.get(read, _whole(graph.ops[read])), rows=left)
        for reader in graph.readers(index):
            cuts[reader] = replace(cuts.get(reader, _whole(graph.ops[reader])), columns=left)
    ops = tuple(_smaller(index, op, kept, cuts) for index, op in enumerate(graph.ops))
    return Pruned(replace(graph, ops=ops), kept, cuts)


def _between_matrices(graph: Graph, read: int, index: int) -> bool:
    """Whether an activation is all that reads a matrix's output, neuron by neuron, and only matrices read its own."""
    ops, readers = graph.ops, graph.readers(index)
    alone = graph.readers(read) == (index,) and ops[read].shape == ops[index].shape
    return (
        alone and isinstance(ops[read], Linear) and bool(readers) and all(isinstance(ops[i], Linear) for i in readers)
    )


def _whole(op: Op) -> Cut:
    assert isinstance(op, Linear)
    return Cut(op.weight, op.bias)


def _smaller(index: int, op: Op, kept: Mapping[int, Tensor], cuts: Mapping[int, Cut]) -> Op:
    shape = (len(kept[index]),) if index in kept else op.shape
    if index not in cuts:
        return replace(op, shape=shape)
    assert isinstance(op, Linear)
    # Names of their own: two operations may share one matrix, and different parts of it be left.
    weight, bias = f"pruned.{index}.weight", None if op.bias is None else f"pruned.{index}.bias"
    columns = cuts[index].columns
    return replace(
        op, shape=shape, weight=weight, bias=bias, in_shape=op.in_shape if columns is None else (len(columns),)
    )
