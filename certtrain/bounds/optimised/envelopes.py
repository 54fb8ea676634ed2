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
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.optimised.region import Envelope, Held
from certtrain.bounds.optimised.space import Part


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
class Neurons:
    """Neurons of a layer whose pre-activations are one matrix times outputs of earlier operations, bounded ones.

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

    def to(self, dtype: torch.dtype) -> Neurons:
        """In another precision."""
        own = (x.to(dtype) for x in (self.weight, self.least, self.most, self.bias, self.room))
        return Neurons(self.part, self.sources, self.index, *own)

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
        return Envelope(self.part, own, constant, blend.taken * free.to(blend.taken.dtype))

    def derivative(self, blend: Blend, asked: Tensor, line: Held, values: Mapping[int, Tensor]) -> Blend:
        """Of a row's bound.

        Args:
            blend: At which.
            asked: The row's coefficients of free neurons' outputs where they ask for upper bounds, that is where they
                are negative, zero elsewhere, [1, neurons].
            line: Around the activation, before anything of it was taken.
            values: See `passes.forward`.
        """
        y = torch.cat([values[i].flatten(1) for i, _ in self.sources], dim=1)[0]
        products = self.weight * y[self.index]
        above_zero, above_all = self._constants(blend.shares)
        anchor = torch.where((above_zero > above_all)[:, None], self.least, self.most)
        by_shares = (asked[0] * blend.taken)[:, None] * (products - anchor)
        own = (blend.shares * products).sum(1) + torch.maximum(above_zero, above_all)
        upper, intercept = (self.part.gather(x)[0] for x in (line.upper, line.intercept))
        return Blend(by_shares, asked[0] * (own - upper * (products.sum(1) + self.bias) - intercept))

    def _constants(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest constants with which envelopes are above zero, and above pre-activations."""
        return -(shares * self.least).sum(1), self.bias + ((1 - shares) * self.most).sum(1)


def envelopes_of(neurons: Sequence[Neurons], blends: Sequence[Blend], free: Tensor) -> dict[int, Envelope]:
    """Activation -> its envelopes.

    Args:
        neurons: Of each layer that has some.
        blends: Of each, in its precision.
        free: Columns where they may be, [rows or 1, columns].
    """
    pairs = zip(neurons, blends, strict=True)
    return {own.part.activation: own.envelope(blend, free[:, own.part.columns]) for own, blend in pairs}
