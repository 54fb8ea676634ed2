"""Bounds of every element of a hidden layer by back-substitution, or of those elements for which they matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.backsubstitution import Carried, Lines, Substitution
from certtrain.bounds.base import Box
from certtrain.bounds.bulk import Bulk
from certtrain.bounds.interval import Interval, propagate_intervals
from certtrain.bounds.patches import PatchRows
from certtrain.bounds.reach import Reach
from certtrain.bounds.rows import DenseRows, channels_last
from certtrain.bounds.selection import All, Some
from certtrain.bounds.slopes import ReluLines
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Add, ChannelAffine, Linear, LinearMap, ReLU, Reshape, Shape, Values

# Share of unstable elements from which all are computed: by tensor operations that is cheaper, since the rows of a
# position then share its slopes. For the compiled code, where half-filled bundles compete with full ones, it was not
# measured.
MANY = 0.5


BoundsOf = Callable[[int, Lines], Interval]


def relu_lines(graph: Graph, bounds_of: BoundsOf, relax: Callable[[Interval], ReluLines]) -> Lines:
    """Relaxes every ReLU in order, each with bounds that may use the lines of those before it.

    Args:
        graph: The network.
        bounds_of: (operation that a ReLU reads, lines so far) -> bounds of its output.
        relax: Bounds of pre-activations -> lines.

    Returns:
        Lines by the ReLU's index, channels last.
    """
    lines: dict[int, ReluLines] = {}
    for index, op in enumerate(graph.ops):
        if isinstance(op, ReLU):
            lines[index] = relax(bounds_of(op.inputs[0], lines)).map(channels_last)
    return lines


def unless_exact(graph: Graph, intervals: list[Interval], bound: Callable[[int, Lines], Interval]) -> BoundsOf:
    """For `relu_lines`: intervals where they are exact, what `bound` finds elsewhere."""
    return lambda index, lines: intervals[index] if _interval_is_exact(graph, index) else bound(index, lines)


def exact_intervals(graph: Graph, values: Values, box: Box) -> list[Interval]:
    """As many of `propagate_intervals` as `unless_exact` asks for."""
    exact = (op.inputs[0] for op in graph.ops if isinstance(op, ReLU) and _interval_is_exact(graph, op.inputs[0]))
    return propagate_intervals(graph, values, box, max(exact, default=0))


def _interval_is_exact(graph: Graph, index: int) -> bool:
    """Whether interval propagation loses nothing up to here, so that back-substitution would return the same.

    True from the input through at most one affine layer; scaling channels and reshaping lose nothing either.
    """
    mixing = 0
    while graph.ops[index].inputs:
        op = graph.ops[index]
        if isinstance(op, (ReLU, Add)):
            return False
        mixing += isinstance(op, LinearMap) and not isinstance(op, (ChannelAffine, Reshape))
        index = op.inputs[0]
    return mixing <= 1


def bound_operation(
    substitution: Substitution,
    index: int,
    lines: Lines,
    known: Interval | None = None,
    *,
    middle: Tensor | None = None,
    rest: Interval | None = None,
) -> Interval:
    """Bounds of one operation's output, each [batch, *shape].

    Args:
        substitution: The network and the box.
        index: The operation.
        lines: Relaxation of every ReLU before it.
        known: Bounds to intersect with. Elements that are stable by these keep them, since the relaxation of a stable
            ReLU is exact whatever its bounds, and where most are, only the others are computed.
        middle: What bounds are symmetric around, [batch, *shape], where all lines are parallel: upper bounds then need
            no rows of their own.
        rest: Bounds of a part of the output that the lines leave out, added to those of the rows.
    """
    op, batch = substitution.graph.ops[index], substitution.batch
    sides = 2 if middle is None else 1
    start, forms = _elements(substitution, index, sides)
    bulk = Bulk.of(substitution, start, lines)
    layer = Layer(op.shape, forms)
    unstable = None if known is None else _unstable(known)
    if known is not None and unstable is not None and not substitution.is_transformed:
        elements = layer.flatten(unstable).nonzero()[:, 0]
        if not len(elements):
            return known
        if len(elements) <= MANY * batch * op.size:
            rows = bulk.lower(Some(elements, layer.positions if len(op.shape) == 3 else None, forms, sides))
            some = _both(rows[:, 0], rows[:, -1], middle, rest, lambda x: layer.flatten(x)[elements])
            return layer.replaced(known, elements, some)
    wanted = None
    if unstable is not None and substitution.is_transformed:
        # No rows can be left out where nothing may depend on the data, but the compiled code may pass over them.
        wanted = layer.flatten(unstable).reshape(-1, forms).repeat(1, sides)
    rows = bulk.lower(All(batch, layer.positions, sides * forms), wanted).reshape(batch, -1, sides * forms)
    found = _both(layer.shaped(rows[..., :forms]), layer.shaped(rows[..., -forms:]), middle, rest, lambda x: x)
    if known is None or unstable is None:
        return found
    both = found.intersect(known)
    return Interval(torch.where(unstable, both.lower, known.lower), torch.where(unstable, both.upper, known.upper))


def _both(
    lower: Tensor, of_negative: Tensor, middle: Tensor | None, rest: Interval | None, pick: Callable[[Tensor], Tensor]
) -> Interval:
    """Bounds from those of rows; `pick` takes the rows' elements from a layer."""
    found = Interval(lower, -of_negative if middle is None else 2 * pick(middle) - lower)
    return found if rest is None else found + rest.map(pick)


def _unstable(bounds: Interval) -> Tensor:
    """Where a ReLU may do either; false where a bound is NaN, which stays."""
    return (bounds.lower < 0) & (bounds.upper > 0)


def _elements(substitution: Substitution, index: int, sides: int) -> tuple[Carried, int]:
    """A row for every element of a layer, with two sides one for its negative, too; and the elements per position."""
    op, like = substitution.graph.ops[index], substitution.anchor.radius

    def signed(x: Tensor) -> Tensor:
        return torch.cat([x, -x]) if sides == 2 else x

    if isinstance(op, Linear) and index > substitution.anchor.center_index:
        # The rows of a matrix are there already: no need to multiply it by the identity.
        weight, bias = substitution.values[op.weight], op.offset(substitution.values)
        constant = None if bias is None else signed(bias)[None]
        return Carried({op.inputs[0]: DenseRows(signed(weight)[None])}, constant), len(weight)
    forms = op.shape[0] if len(op.shape) == 3 else op.size
    data = signed(torch.eye(forms, dtype=like.dtype, device=like.device))
    if len(op.shape) == 3:
        return Carried({index: PatchRows(data[None], Reach.pixels(op.shape), inside=True)}), forms
    return Carried({index: DenseRows(data.reshape(1, -1, *op.shape))}), forms


@dataclass(frozen=True)
class Layer:
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
