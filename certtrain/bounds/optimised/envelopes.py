"""Upper bounds of ReLUs that are affine in what a layer reads, instead of in its pre-activation alone.

For y in a box, max(0, Σ w_i y_i + b) <= Σ t_i w_i y_i + q, for any shares t_i between 0 and 1 and the least q with
which the right-hand side is above both zero and w y + b everywhere on the box. With all t_i = u / (u - l), for l and u
from the box, it is the chord. The inequalities of Anderson et al. (arXiv 1811.01988), which make the convex hull of the
neuron's graph, have t_i in {0, 1} for all inputs but one; Tjandraatmadja et al. (arXiv 2006.14076) take that of them
which is tightest at a point. Here shares are improved like slopes: the derivative of a row's bound is made of what the
passes back and forward have anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certtrain.activations import Interval, ReLU
from certtrain.bounds.optimised.region import Envelope, Held, Region
from certtrain.bounds.optimised.space import Part, Space
from certtrain.networks.graph import Graph
from certtrain.networks.ops import Activation, Add, Input, Linear, Reshape

# What sums of float64 may be off by, relative to the sum of all that is added.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Blend:
    """What upper bounds of a layer are made of.

    Attributes:
        shares: The t_i, between 0 and 1, [neurons, most].
        taken: How much of an upper bound is the envelope; the rest is the upper line; between 0 and 1, [neurons].
    """

    shares: Tensor
    taken: Tensor

    def to(self, dtype: torch.dtype) -> Blend:
        """In another precision."""
        return Blend(self.shares.to(dtype), self.taken.to(dtype))


@dataclass(frozen=True)
class Layer:
    """Neurons whose pre-activations are one matrix times outputs of earlier operations, of which there are bounds.

    Attributes:
        part: The neurons.
        sources: Operations that are read, and their sizes; their outputs, one after the other, are y.
        index: Of what each neuron reads, [neurons, most]; where one reads less, with weight zero.
        weight: [neurons, most].
        least: The smallest value of each product of a weight and its input, [neurons, most].
        most: The largest one.
        bias: [neurons].
        room: For rounding of constants, [neurons].
    """

    part: Part
    sources: tuple[tuple[int, int], ...]
    index: Tensor
    weight: Tensor
    least: Tensor
    most: Tensor
    bias: Tensor
    room: Tensor

    def to(self, dtype: torch.dtype) -> Layer:
        """In another precision."""
        own = (x.to(dtype) for x in (self.weight, self.least, self.most, self.bias, self.room))
        return Layer(self.part, self.sources, self.index, *own)

    def blend(self, line: Held, taken: float) -> Blend:
        """Envelopes with the slopes of an activation's upper lines, and so much of them."""
        slopes = self.part.gather(line.upper)[0]
        return Blend(slopes[:, None].expand_as(self.weight).contiguous(), torch.full_like(slopes, taken))

    def envelope(self, blend: Blend, free: Tensor) -> Envelope:
        """Where neurons are free, [rows or 1, neurons]."""
        count = sum(size for _, size in self.sources)
        weight = self.weight.new_zeros((len(self.bias), count)).scatter_add(1, self.index, blend.shares * self.weight)
        forms = weight.split([size for _, size in self.sources], dim=1)
        constant = torch.maximum(*self._constants(blend.shares)) + self.room
        own = {source: form for (source, _), form in zip(self.sources, forms, strict=True)}
        return Envelope(self.part, own, constant, blend.taken * free)

    def derivative(self, blend: Blend, negative: Tensor, line: Held, values: Mapping[int, Tensor]) -> Blend:
        """Of a row's bound.

        Args:
            blend: At which.
            negative: The row's coefficients of free neurons' outputs where they are negative, zero elsewhere,
                [1, neurons].
            line: Around the activation, before anything of it was taken.
            values: See `passes.forward`.
        """
        y = torch.cat([values[i].flatten(1) for i, _ in self.sources], dim=1)[0]
        products = self.weight * y[self.index]
        above_zero, above_all = self._constants(blend.shares)
        anchor = torch.where((above_zero > above_all)[:, None], self.least, self.most)
        by_shares = (negative[0] * blend.taken)[:, None] * (products - anchor)
        own = (blend.shares * products).sum(1) + torch.maximum(above_zero, above_all)
        upper, intercept = (self.part.gather(x)[0] for x in (line.upper, line.intercept))
        return Blend(by_shares, negative[0] * (own - upper * (products.sum(1) + self.bias) - intercept))

    def _constants(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest constants with which envelopes are above zero, and above pre-activations."""
        return -(shares * self.least).sum(1), self.bias + ((1 - shares) * self.most).sum(1)


def enveloped(region: Region, layers: Sequence[Layer], blends: Sequence[Blend], free: Tensor) -> Region:
    """With so much of envelopes in place of upper lines.

    Args:
        region: Without envelopes.
        layers: In its precision.
        blends: Of each.
        free: Columns where they may be, [rows or 1, columns].
    """
    assert not region.envelopes, "upper lines were given up for other envelopes already"
    held, own = dict(region.held), {}
    for layer, blend in zip(layers, blends, strict=True):
        index, part = layer.part.activation, layer.part
        envelope = layer.envelope(blend, free[:, part.columns].to(blend.taken.dtype))
        line = held[index]
        upper, intercept = (part.spread(part.gather(x) * (1 - envelope.taken), x) for x in (line.upper, line.intercept))
        held[index], own[index] = replace(line, upper=upper, intercept=intercept), envelope
    return replace(region, held=held, envelopes=own)


def layers_of(region: Region, space: Space, hidden: Mapping[int, Interval]) -> tuple[Layer, ...]:
    """Those that can have envelopes: ReLUs behind matrices, sums of them among these, on the box of one image.

    Args:
        region: The network, float64, one row.
        space: Columns of its neurons.
        hidden: Operation that an activation reads -> bounds, float64, [1, *shape].
    """
    found = (_layer(region, part, hidden) for part in space.parts)
    return tuple(layer for layer in found if layer is not None)


def _layer(region: Region, part: Part, hidden: Mapping[int, Interval]) -> Layer | None:
    graph, op = region.graph, region.graph.ops[part.activation]
    matrices = _matrices(graph, part.read)
    if not (matrices and isinstance(op, Activation) and isinstance(op.function, ReLU)):
        return None
    every = torch.arange(op.size) if part.elements is None else part.elements
    weights: dict[int, Tensor] = {}
    bias = region.center.new_zeros(len(every))
    for matrix in matrices:
        source = matrix.inputs[0]
        weights[source] = weights.get(source, 0) + region.values[matrix.weight][every]
        bias = bias if matrix.bias is None else bias + region.values[matrix.bias][every]
    ranges = [_range(region, hidden, source) for source in weights]
    known = [range_ for range_ in ranges if range_ is not None]
    if len(known) < len(ranges):
        return None
    weight = torch.cat(list(weights.values()), dim=1)
    read = weight != 0
    index = read.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : int(read.sum(1).amax())]
    low, high = (
        torch.cat([r.lower.flatten() for r in known])[index],
        torch.cat([r.upper.flatten() for r in known])[index],
    )
    weight = weight.gather(1, index)
    least, most = torch.minimum(weight * low, weight * high), torch.maximum(weight * low, weight * high)
    room = ROUNDING * (bias.abs() + (least.abs() + most.abs()).sum(1))
    sources = tuple((source, graph.ops[source].size) for source in weights)
    return Layer(part, sources, index, weight, least, most, bias, room)


def _matrices(graph: Graph, index: int) -> list[Linear]:
    """Of which an operation is the sum; none where it is something else, too."""
    op = graph.ops[index]
    if isinstance(op, Linear):
        return [op]
    if isinstance(op, Add):
        terms = [_matrices(graph, i) for i in op.inputs]
        return [matrix for term in terms for matrix in term] if all(terms) else []
    return []


def _range(region: Region, hidden: Mapping[int, Interval], index: int) -> Interval | None:
    """Bounds of what an operation makes, where they are at hand."""
    op = region.graph.ops[index]
    if isinstance(op, Input):
        return Interval(region.center - region.radius, region.center + region.radius)
    if isinstance(op, Reshape):
        return _range(region, hidden, op.inputs[0])
    if isinstance(op, Activation) and op.inputs[0] in hidden and op.function.element_wise:
        return op.function.image(hidden[op.inputs[0]])
    return None
