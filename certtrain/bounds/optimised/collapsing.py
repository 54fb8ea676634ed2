"""A network of which only undecided neurons are left: what lies between them is affine on a box, and becomes matrices.

On the box of one image nearly all neurons of a network that was trained to be certified are zero, or pass on what they
are given. Rows need not be carried through them one layer after the other: the pre-activations of undecided neurons are
affine in the input and in the outputs of undecided neurons before them. That is exact, on this box and on every part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.optimised.passes import Start, backward
from certtrain.bounds.optimised.region import Held, Region
from certtrain.bounds.optimised.space import Part, Space, passed
from certtrain.bounds.rows.chunks import rows_at_once
from certtrain.networks.graph import Graph, Params
from certtrain.networks.ops import Activation, Add, Conv2d, Input, Linear, Op, Reshape

# How many products of a matrix take as long as one of a convolution: 3 to 20 were measured on cnn3 and cnn5, 512 rows.
CONVOLUTION = 6


@dataclass(frozen=True)
class Site:
    """An activation of which something is left.

    Attributes:
        activation: Its index in the smaller network.
        read: The operation there that it reads.
        elements: Which of its inputs are left, flattened, ascending.
    """

    activation: int
    read: int
    elements: Tensor

    def gather(self, layer: Tensor) -> Tensor:
        """What is left of a layer, [rows, *shape] -> [rows, elements]."""
        return layer.flatten(1)[:, self.elements]


@dataclass(frozen=True)
class Collapsed:
    """The smaller network.

    Attributes:
        graph: Matrices, sums and activations; its input has the shape that it had.
        values: What the matrices are.
        sites: Activation of the whole network -> what is left of it.
        outputs: Which elements of the operation that rows begin at are its outputs, flattened, ascending.
    """

    graph: Graph
    values: Params
    sites: Mapping[int, Site]
    outputs: Tensor

    def region(self, whole: Region) -> Region:
        """The region of the smaller network, from one of the whole network in any precision."""
        values = {name: x.to(whole.center.dtype) for name, x in self.values.items()}
        held = {site.activation: whole.held[index].map(site.gather) for index, site in self.sites.items()}
        return Region(self.graph, values, whole.center, whole.radius, held)

    def space(self, whole: Space) -> Space:
        """The same columns, of the smaller network's neurons."""
        return Space(tuple(self._part(part) for part in whole.parts))

    def bounds(self, whole: Mapping[int, Interval], graph: Graph) -> dict[int, Interval]:
        """Of pre-activations that are left, from those of the whole network, the operations of a graph."""
        reads = {site.read: (graph.ops[index].inputs[0], site) for index, site in self.sites.items()}
        return {read: whole[before].map(site.gather) for read, (before, site) in reads.items()}

    def start(self, whole: Start) -> Start:
        """Rows over the outputs, from rows over the whole operation that have nothing anywhere else."""
        rows = whole.data.flatten(1)[:, self.outputs]
        return Start(len(self.graph.ops) - 1, rows, whole.constant)

    def _part(self, part: Part) -> Part:
        site = self.sites[part.activation]
        elements: Tensor | None = None
        if part.elements is not None:
            elements = torch.searchsorted(site.elements, part.elements)
            if len(elements) == len(site.elements):
                elements = None
        return Part(site.activation, site.read, elements, part.columns)


def collapse(
    region: Region,
    space: Space,
    target: int | None = None,
    outputs: Tensor | None = None,
    limit: int | None = None,
) -> Collapsed | None:
    """Leaves undecided neurons alone, where that takes fewer products.

    Args:
        region: The network on boxes, one row each: neurons with a line that all have in common are not left.
        space: Its columns: they are left whatever their lines are.
        target: The operation that rows will begin at; None for the output.
        outputs: Which of its elements they will be over, flattened, ascending; None for all.
        limit: Products that a row takes otherwise; None for those of the whole network.

    Returns:
        The smaller network; None where it is no less work, or an activation has several inputs.
    """
    graph = region.graph
    target = len(graph.ops) - 1 if target is None else target
    outputs = torch.arange(graph.ops[target].size, device=region.center.device) if outputs is None else outputs
    lines = {index: line for index, line in region.held.items() if index <= target}
    if not all(op.function.element_wise for index, op in graph.activations if index in lines):
        return None
    left = {index: _left(line) for index, line in lines.items()}
    for part in space.parts:
        left[part.activation][slice(None) if part.elements is None else part.elements] = True
    elements = {index: mask.nonzero().flatten() for index, mask in left.items()}
    widths = [prod(graph.input_shape), *map(len, elements.values()), len(outputs)]
    # Every layer is reached from all before it; outputs once, as of `products`.
    own = sum(sum(widths[:place]) * width for place, width in enumerate(widths[:-1]))
    if own >= (products(graph, target) if limit is None else limit):
        return None
    return _Builder(graph).built(dict(_forms(region, elements, target, outputs)), elements, outputs)


def products(graph: Graph, target: int) -> int:
    """What a pass costs a row over an operation's output, about: what it is carried through once does not count."""
    before = passed(graph, target)
    first = max((index for index in before if isinstance(graph.ops[index], Activation)), default=0)
    return sum(_products(graph.ops[index]) for index in before if index < first)


def _left(line: Held) -> Tensor:
    """Where an activation's lines are not one line for all rows, bool, flattened."""
    below = torch.zeros_like(line.intercept) if line.lower_intercept is None else line.lower_intercept
    two = (line.lower != line.upper) | (line.intercept != below)
    several = (line.lower != line.lower[:1]) | (line.intercept != line.intercept[:1])
    return (two | several).any(0).flatten()


def _products(op: Op) -> int:
    """What an operation costs a row."""
    if isinstance(op, Linear):
        return op.size * prod(op.in_shape)
    if isinstance(op, Conv2d):
        return CONVOLUTION * op.size * prod(op.window.kernel) * op.in_shape[0] // op.groups
    return 0


@dataclass(frozen=True)
class _Forms:
    """Elements of an operation, affine in the input and in what is left before them.

    Attributes:
        inputs: [elements, inputs].
        constants: [elements].
        through: Activation -> coefficients of what is left of its outputs, [elements, left].
    """

    inputs: Tensor
    constants: Tensor
    through: Mapping[int, Tensor]

    @staticmethod
    def joined(pieces: list[_Forms]) -> _Forms:
        """One after the other."""
        through = {i: torch.cat([piece.through[i] for piece in pieces]) for i in pieces[0].through}
        inputs, constants = zip(*((piece.inputs, piece.constants) for piece in pieces), strict=True)
        return _Forms(torch.cat(inputs), torch.cat(constants), through)


def _forms(
    region: Region, elements: Mapping[int, Tensor], target: int, outputs: Tensor
) -> Iterator[tuple[int, _Forms]]:
    """Activation -> its inputs that are left, carried back to the input and to those before it; outputs come last."""
    ops, like = region.graph.ops, region.center[:1]
    # What is left is read off where rows pass it, and carried no further.
    held = {i: _silent(line, elements[i]) for i, line in region.held.items() if i in elements}
    bare = replace(region, center=like, radius=region.radius[:1], held=held)
    most = rows_at_once(sum(op.size for op in ops[: target + 1]), like, None, recorded=True)

    def carried(read: int, at: Tensor) -> _Forms:
        one = like.new_zeros((len(at), ops[read].size)).scatter(1, at[:, None], 1.0)
        found = backward(bare, Start(read, one.reshape(-1, *ops[read].shape), like.new_zeros(len(at))))
        through = {i: x.flatten(1)[:, elements[i]] for i, x in found.coefficients.items()}
        return _Forms(found.form.flatten(1), found.constant, through)

    waiting, met = [(len(ops), target, outputs)], set[int]()
    while waiting:
        index, read, at = waiting.pop()
        found = _Forms.joined([carried(read, piece) for piece in at.split(most)])
        yield index, found
        fresh = found.through.keys() - met
        waiting += [(i, ops[i].inputs[0], elements[i]) for i in fresh if len(elements[i])]
        met |= fresh


def _silent(line: Held, elements: Tensor) -> Held:
    def without(x: Tensor) -> Tensor:
        return x[:1].flatten(1).index_fill(1, elements, 0.0).reshape(x[:1].shape)

    return line.map(without)


class _Builder:
    """Lists the operations of the smaller network."""

    def __init__(self, graph: Graph) -> None:
        flat = prod(graph.input_shape)
        self._graph = graph
        self._ops: list[Op] = [
            Input("input", (), graph.input_shape),
            Reshape("collapsed", (0,), (flat,), graph.input_shape),
        ]
        self._values: Params = {}
        self._sites: dict[int, Site] = {}

    def built(self, forms: Mapping[int, _Forms], elements: Mapping[int, Tensor], outputs: Tensor) -> Collapsed:
        """From what `_forms` has found."""
        for index in sorted(forms):
            found = forms[index]
            terms = [self._matrix(f"collapsed.{index}", 1, found.inputs, found.constants)]
            for i, site in self._sites.items():
                if i in found.through:
                    terms.append(self._matrix(f"collapsed.{index}.{i}", site.activation, found.through[i]))
            shape = self._ops[terms[0]].shape
            total = terms[0] if len(terms) == 1 else self._append(Add(f"collapsed.{index}.sum", tuple(terms), shape))
            if index in elements:
                op = self._graph.ops[index]
                assert isinstance(op, Activation)
                own = self._append(Activation(op.name, (total,), shape, op.function))
                self._sites[index] = Site(own, total, elements[index])
        graph = replace(self._graph, ops=tuple(self._ops))
        return Collapsed(graph, self._values, self._sites, outputs)

    def _append(self, op: Op) -> int:
        self._ops.append(op)
        return len(self._ops) - 1

    def _matrix(self, name: str, read: int, weight: Tensor, bias: Tensor | None = None) -> int:
        self._values[f"{name}.weight"] = weight.contiguous()
        if bias is not None:
            self._values[f"{name}.bias"] = bias
        rows, columns = weight.shape
        named = None if bias is None else f"{name}.bias"
        return self._append(Linear(name, (read,), (rows,), (columns,), f"{name}.weight", named))
