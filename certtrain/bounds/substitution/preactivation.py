"""Pre-activation bounds by back-substitution: of every neuron of a hidden layer, or of those for which they matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from certtrain.activations import Interval, Lines, SlopeRule
from certtrain.bounds.analysis import Given
from certtrain.bounds.base import Box
from certtrain.bounds.executors import Executor
from certtrain.bounds.forward.interval import propagate_intervals
from certtrain.bounds.rows.carry import Carried
from certtrain.bounds.rows.dense import DenseRows, channels_last
from certtrain.bounds.rows.descent import Descent
from certtrain.bounds.rows.passage import Linearization, Passage
from certtrain.bounds.rows.patches import PatchRows
from certtrain.bounds.rows.reach import Reach
from certtrain.bounds.rows.selection import All, Some
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Linear, LinearMap, Shape, Values

# Share of undecided elements from which all are computed: by tensor operations that is cheaper, since the rows of a
# position then share its slopes. For the compiled code, where half-filled bundles compete with full ones, it was not
# measured.
MANY = 0.5


BoundsOf = Callable[[int, Mapping[int, Lines]], Interval]


@dataclass(frozen=True)
class Substitution:
    """Back-substitution on one box: who carries rows, and through what.

    Attributes:
        passage: The network and the box.
        executor: Carries rows.
        given: What is known or chosen before.
    """

    passage: Passage
    executor: Executor
    given: Given

    @property
    def graph(self) -> Graph:
        """The network."""
        return self.passage.graph

    @property
    def values(self) -> Values:
        """Parameters and buffers."""
        return self.passage.values


@dataclass(frozen=True)
class Hidden:
    """What is known of activations, in the order of the network.

    Attributes:
        bounds: Operation that an activation reads -> pre-activation bounds, each [batch, *shape].
        lines: Activation -> lines around it, channels last.
    """

    bounds: dict[int, Interval]
    lines: dict[int, Lines]


def relax_activations(graph: Graph, given: Given, bounds_of: BoundsOf, slopes: SlopeRule) -> Hidden:
    """Relaxes every activation in order, each with bounds that may use the lines of those before it.

    Args:
        graph: The network.
        given: What is known, decided and chosen.
        bounds_of: (operation that an activation reads, lines so far) -> bounds of its output.
        slopes: The rule for slopes that are not given.
    """
    hidden = Hidden({}, {})
    for index, op in graph.activations:
        z = pre_activation(hidden, given, op.inputs[0], bounds_of)
        chosen = given.slopes.get(index)
        # Those for each row of the specification are of no use to other rows.
        for_all = chosen is not None and chosen.dim() == z.lower.dim()
        lines = op.function.lines(z, chosen if for_all else slopes)  # type: ignore[arg-type]
        hidden.lines[index] = given.loosen(op.inputs[0], lines).map(channels_last)
    return hidden


def pre_activation(hidden: Hidden, given: Given, index: int, bounds_of: BoundsOf) -> Interval:
    """Pre-activation bounds, computed once for all activations that read them."""
    if index not in hidden.bounds:
        hidden.bounds[index] = given.refine(index, bounds_of(index, hidden.lines))
    return hidden.bounds[index]


def unless_exact(graph: Graph, intervals: Sequence[Interval] | Mapping[int, Interval], bound: BoundsOf) -> BoundsOf:
    """Intervals where they are exact, what `bound` finds elsewhere."""
    return lambda index, lines: intervals[index] if _interval_is_exact(graph, index) else bound(index, lines)


def exact_intervals(substitution: Substitution, box: Box) -> list[Interval]:
    """As many of `propagate_intervals` as `unless_exact` asks for."""
    graph = substitution.graph
    read = (op.inputs[0] for _, op in graph.activations)
    last = max((index for index in read if _interval_is_exact(graph, index)), default=0)
    return propagate_intervals(graph, substitution.values, box, last, substitution.given)


def _interval_is_exact(graph: Graph, index: int) -> bool:
    """Whether interval propagation loses nothing up to here, so that back-substitution would return the same.

    True from the input through at most one affine layer; what maps boxes to boxes loses nothing either.
    """
    mixing = 0
    while (op := graph.ops[index]).inputs:
        if not isinstance(op, LinearMap):
            return False
        mixing += not op.keeps_boxes
        index = op.inputs[0]
    return mixing <= 1


def bound_operation(
    substitution: Substitution,
    index: int,
    lines: Mapping[int, Lines],
    known: Interval | None = None,
    *,
    middle: Tensor | None = None,
    rest: Interval | None = None,
) -> Interval:
    """Bounds of one operation's output, each [batch, *shape].

    Args:
        substitution: The network and the box.
        index: The operation.
        lines: Around every activation before it.
        known: Bounds to intersect with. Elements on which every activation that reads them is linear keep them: its
            lines are exact there whatever the bounds. Where most are, only the others are computed.
        middle: What bounds are symmetric around, [batch, *shape], where all lines are parallel: upper bounds then need
            no rows of their own.
        rest: Bounds of a part of the output that the lines leave out, added to those of the rows.
    """
    passage = substitution.passage
    op, batch = passage.graph.ops[index], passage.batch
    sides = 2 if middle is None else 1
    start, forms = _elements(passage, index, sides)
    descent = Descent.of(passage, start, Linearization(dict(lines)))  # more lines come later
    layer = Numbering(op.shape, forms)
    undecided = None if known is None else _undecided(passage.graph, index, known)
    if known is not None and undecided is not None and not passage.is_transformed:
        elements = layer.flatten(undecided).nonzero()[:, 0]
        if not len(elements):
            return known
        if len(elements) <= MANY * batch * op.size:
            positions = layer.positions if len(op.shape) == 3 else None
            rows = substitution.executor.lower(descent, Some(elements, positions, forms, sides))
            some = _both(rows[:, 0], rows[:, -1], middle, rest, lambda x: layer.flatten(x)[elements])
            return layer.replaced(known, elements, some)
    wanted = None
    if undecided is not None and passage.is_transformed:
        # No rows can be left out where nothing may depend on the data, but an executor may pass over them.
        wanted = layer.flatten(undecided).reshape(-1, forms).repeat(1, sides)
    rows = substitution.executor.lower(descent, All(batch, layer.positions, sides * forms), wanted)
    rows = rows.reshape(batch, -1, sides * forms)
    found = _both(layer.shaped(rows[..., :forms]), layer.shaped(rows[..., -forms:]), middle, rest, lambda x: x)
    if known is None or undecided is None:
        return found
    both = found.intersect(known)
    return Interval(torch.where(undecided, both.lower, known.lower), torch.where(undecided, both.upper, known.upper))


def _both(
    lower: Tensor, of_negative: Tensor, middle: Tensor | None, rest: Interval | None, pick: Callable[[Tensor], Tensor]
) -> Interval:
    """Bounds from those of rows; `pick` takes the rows' elements from a layer."""
    found = Interval(lower, -of_negative if middle is None else 2 * pick(middle) - lower)
    return found if rest is None else found + rest.map(pick)


def _undecided(graph: Graph, index: int, bounds: Interval) -> Tensor:
    """Where an activation that reads an operation is not linear on the bounds; false where one is NaN, which stays."""
    functions = [op.function for _, op in graph.activations if index in op.inputs]
    return reduce(torch.logical_or, [function.undecided(bounds) for function in functions])


def _elements(passage: Passage, index: int, sides: int) -> tuple[Carried, int]:
    """A row for every element of a layer, with two sides one for its negative, too; and the elements per position."""
    op, like = passage.graph.ops[index], passage.anchor.radius

    def signed(x: Tensor) -> Tensor:
        return torch.cat([x, -x]) if sides == 2 else x

    if isinstance(op, Linear) and index > passage.anchor.center_index:
        # The rows of a matrix are there already: no need to multiply it by the identity.
        weight, bias = passage.values[op.weight], op.offset(passage.values)
        constant = None if bias is None else signed(bias)[None]
        return Carried({op.inputs[0]: DenseRows(signed(weight)[None])}, constant), len(weight)
    forms = op.shape[0] if len(op.shape) == 3 else op.size
    data = signed(torch.eye(forms, dtype=like.dtype, device=like.device))
    if len(op.shape) == 3:
        return Carried({index: PatchRows(data[None], Reach.pixels(op.shape), inside=True)}), forms
    return Carried({index: DenseRows(data.reshape(1, -1, *op.shape))}), forms


@dataclass(frozen=True)
class Numbering:
    """How a layer's elements are numbered: channels last, image by image.

    Attributes:
        shape: Of the layer.
        forms: Elements per position.
    """

    shape: Shape
    forms: int

    @property
    def positions(self) -> int:
        """Positions of an image."""
        return torch.Size(self.shape).numel() // self.forms

    def flatten(self, x: Tensor) -> Tensor:
        """[batch, *shape] -> [batch · elements]."""
        return channels_last(x).flatten()

    def shaped(self, x: Tensor) -> Tensor:
        """[batch, positions, forms] -> [batch, *shape]."""
        if len(self.shape) == 3:
            return x.reshape(len(x), *self.shape[1:], self.shape[0]).movedim(-1, 1)
        return x.reshape(len(x), *self.shape)

    def replaced(self, known: Interval, elements: Tensor, found: Interval) -> Interval:
        """What is known, intersected with bounds of some elements."""

        def put(old: Tensor, new: Tensor) -> Tensor:
            return self.shaped(old.index_put((elements,), new).reshape(-1, self.positions, self.forms))

        lower, upper = self.flatten(known.lower), self.flatten(known.upper)
        both = Interval(lower[elements], upper[elements]).intersect(found)
        return Interval(put(lower, both.lower), put(upper, both.upper))
