"""The specification merged into the last affine layer: margins are bounded directly, never as differences of bounds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.networks.graph import Graph
from certtrain.networks.kernels import is_transformed
from certtrain.networks.ops import LinearMap, Reshape, Values


def spec_rows(graph: Graph, spec: Tensor | None, like: Tensor) -> Tensor:
    """The specification in dtype and device of `like`; the identity, shared by all images, where there is none."""
    if spec is None:
        return torch.eye(graph.num_outputs, dtype=like.dtype, device=like.device)[None]
    return spec.to(dtype=like.dtype, device=like.device)


@dataclass(frozen=True)
class Pairs:
    """A specification of margins, e_i - e_j, by the pairs of outputs: a batch has many margins, but few pairs.

    Attributes:
        rows: Of every pair i < j, [1, pairs, outputs].
        index: Which pair each margin is of, [batch, rows].
        flipped: Which margins have the larger output first, [batch, rows].
    """

    rows: Tensor
    index: Tensor
    flipped: Tensor

    @staticmethod
    def of(rows: Tensor) -> Pairs | None:
        """Of a specification [batch or 1, rows, outputs]; None where it is another one, or pairs are no fewer."""
        outputs, device = rows.shape[-1], rows.device
        if outputs * (outputs - 1) // 2 >= rows.shape[0] * rows.shape[1] or is_transformed(rows):
            return None
        plus, minus = rows.detach().argmax(-1), rows.detach().argmin(-1)
        eye = torch.eye(outputs, dtype=rows.dtype, device=device)
        if rows.requires_grad or not torch.equal(eye[plus] - eye[minus], rows):
            return None
        first, second = torch.triu_indices(outputs, outputs, 1, device=device)
        number = torch.zeros(outputs, outputs, dtype=torch.int64, device=device)
        number[first, second] = torch.arange(len(first), device=device)
        index = number[torch.minimum(plus, minus), torch.maximum(plus, minus)]
        return Pairs((eye[first] - eye[second])[None], index, plus > minus)

    def margins(self, found: Interval) -> Interval:
        """Bounds of the margins, [batch, rows], from those of the pairs, [batch, pairs]."""
        lower, upper = found.lower.gather(1, self.index), found.upper.gather(1, self.index)
        return Interval(torch.where(self.flipped, -upper, lower), torch.where(self.flipped, -lower, upper))


def merge_spec(graph: Graph, values: Values, rows: Tensor) -> tuple[int, Tensor, Tensor]:
    """Carries rows over the outputs back through the last affine layer.

    Args:
        graph: The network.
        values: Parameters and buffers.
        rows: [batch or 1, rows, outputs].

    Returns:
        The operation that the merged rows apply to, the rows [batch or 1, rows, *its shape] and the constant
        [batch or 1, rows], zero where the network does not end in an affine layer.
    """
    index, constant = len(graph.ops) - 1, torch.zeros_like(rows[..., 0])
    while isinstance(op := graph.ops[index], LinearMap):
        offset = op.offset(values)
        if offset is not None:
            constant = constant + contract(rows, offset.expand(1, *op.shape))
        rows, index = op.adjoint(values, rows), op.inputs[0]
        if not isinstance(op, Reshape):
            break
    return index, rows, constant


def contract(rows: Tensor, x: Tensor) -> Tensor:
    """Sum of products over a layer: [batch or 1, rows, *shape] and [batch or 1, *shape] -> [batch or 1, rows]."""
    flat, x = rows.flatten(2), x.flatten(1)
    if flat.shape[0] == 1:
        return x @ flat[0].mT
    # A batched matrix-vector product reads less but runs at a third of this speed on CPUs.
    return (flat * x[:, None]).sum(-1)


def contract_interval(rows: Tensor, x: Interval, constant: Tensor | float = 0.0) -> Interval:
    """Bounds of those sums and a constant where x lies in an interval, [batch, rows]."""
    return Interval.around(contract(rows, x.center) + constant, contract(rows.abs(), x.radius))
