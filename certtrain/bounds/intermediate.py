"""Bounds of every element of a hidden layer by back-substitution, or of those elements for which they matter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from certtrain.bounds.backsubstitution import Carried, Lines, Substitution
from certtrain.bounds.bulk import Bulk
from certtrain.bounds.interval import Interval
from certtrain.bounds.patches import PatchRows
from certtrain.bounds.reach import Reach
from certtrain.bounds.rows import DenseRows, channels_last
from certtrain.bounds.selection import All, Some
from certtrain.bounds.slopes import ReluLines
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Linear, ReLU, Shape

# Share of unstable elements from which all are computed: by tensor operations that is cheaper, since the rows of a
# position then share its slopes. For the compiled code, where half-filled bundles compete with full ones, it was not
# measured.
MANY = 0.5


def relu_lines(
    graph: Graph, bounds_of: Callable[[int, Lines], Interval], relax: Callable[[Interval], ReluLines]
) -> Lines:
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


def bound_operation(substitution: Substitution, index: int, lines: Lines, known: Interval | None = None) -> Interval:
    """Bounds of one operation's output, each [batch, *shape].

    Args:
        substitution: The network and the box.
        index: The operation.
        lines: Relaxation of every ReLU before it.
        known: Bounds to intersect with. Elements that are stable by these keep them, since the relaxation of a stable
            ReLU is exact whatever its bounds, and where most are, only the others are computed.
    """
    op, batch = substitution.graph.ops[index], substitution.batch
    start, forms = _elements(substitution, index)
    bulk = Bulk.of(substitution, start, lines)
    unstable = None if known is None else _unstable(known)
    if known is not None and unstable is not None and not substitution.is_transformed:
        elements = channels_last(unstable).flatten().nonzero()[:, 0]
        if not len(elements):
            return known
        if len(elements) <= MANY * batch * op.size:
            return _bound_some(bulk, elements, known, op.shape, forms)
    wanted = None
    if unstable is not None and substitution.is_transformed:
        # No rows can be left out where nothing may depend on the data, but the compiled code may pass over them.
        wanted = channels_last(unstable).reshape(-1, forms).repeat(1, 2)
    lower = bulk.lower(All(batch, op.size // forms, 2 * forms), wanted).reshape(batch, -1, 2 * forms)
    found = Interval(_as_layer(lower[..., :forms], op.shape), _as_layer(-lower[..., forms:], op.shape))
    if known is None or unstable is None:
        return found
    both = found.intersect(known)
    return Interval(torch.where(unstable, both.lower, known.lower), torch.where(unstable, both.upper, known.upper))


def _unstable(bounds: Interval) -> Tensor:
    """Where a ReLU may do either; false where a bound is NaN, which stays."""
    return (bounds.lower < 0) & (bounds.upper > 0)


def _elements(substitution: Substitution, index: int) -> tuple[Carried, int]:
    """A row for every element of a layer and one for its negative, and the number of elements per position."""
    op, like = substitution.graph.ops[index], substitution.anchor.radius
    if isinstance(op, Linear) and index > substitution.anchor.center_index:
        # The rows of a matrix are there already: no need to multiply it by the identity.
        weight, bias = substitution.values[op.weight], op.offset(substitution.values)
        constant = None if bias is None else _with_negatives(bias)[None]
        return Carried({op.inputs[0]: DenseRows(_with_negatives(weight)[None])}, constant), len(weight)
    forms = op.shape[0] if len(op.shape) == 3 else op.size
    data = _with_negatives(torch.eye(forms, dtype=like.dtype, device=like.device))
    if len(op.shape) == 3:
        return Carried({index: PatchRows(data[None], Reach.pixels(op.shape), inside=True)}), forms
    return Carried({index: DenseRows(data.reshape(1, -1, *op.shape))}), forms


def _with_negatives(x: Tensor) -> Tensor:
    return torch.cat([x, -x])


def _as_layer(x: Tensor, shape: Shape) -> Tensor:
    """[batch, positions, channels] -> [batch, *shape]."""
    if len(shape) == 3:
        return x.reshape(len(x), *shape[1:], shape[0]).movedim(-1, 1)
    return x.reshape(len(x), *shape)


def _bound_some(bulk: Bulk, elements: Tensor, known: Interval, shape: Shape, forms: int) -> Interval:
    """Bounds of some elements; the others keep what is known.

    Args:
        bulk: Rows of all elements.
        elements: Indices into the layer, channels last and flattened together with the batch.
        known: Bounds of all.
        shape: Of the layer.
        forms: Elements per position.
    """
    positions = torch.Size(shape).numel() // forms
    lower, upper = channels_last(known.lower), channels_last(known.upper)
    rows = bulk.lower(Some(elements, positions if len(shape) == 3 else None, forms))

    def replaced(old: Tensor, new: Tensor) -> Tensor:
        layer = old.flatten().index_put((elements,), new).reshape(len(old), positions, forms)
        return _as_layer(layer, shape)

    return Interval(
        replaced(lower, torch.maximum(lower.flatten()[elements], rows[:, 0])),
        replaced(upper, torch.minimum(upper.flatten()[elements], -rows[:, 1])),
    )
