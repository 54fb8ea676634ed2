"""Slack that makes bounds hold for a network in float32, and what bounds of a specification lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.analysis import Tensors
from certtrain.bounds.base import Box
from certtrain.bounds.rounding.sizes import Sizes, propagate_sizes, size
from certtrain.bounds.rounding.units import FLOOR, UPWARD
from certtrain.networks.graph import Graph, Params

# How much larger than they were found bounds are assumed to be: of the largest pre-activation of a layer.
ROOM = 1 / 32


@dataclass(frozen=True)
class Charges:
    """What a lower bound of a row, found with slack, may be too large by, for every unit that the row consists of.

    Sums of what is charged may be rounded, too: `units.UPWARD` covers that. `units.FLOOR` is added to the sum, for what
    underflows where coefficients or multipliers are tiny.

    Attributes:
        outputs: Of |coefficients| of the network's outputs, [batch, outputs].
        multipliers: Operation that an activation reads -> of multipliers of its split constraints, [batch, *shape].
        constant: Of |constants| that were added to the row before it was carried back.
    """

    outputs: Tensor
    multipliers: Tensors
    constant: float


@dataclass(frozen=True)
class Rounding:
    """Bounds of all rounding errors on a box; valid where `confirms` says so, and `finite` is true.

    Attributes:
        assumed: Operation that an activation reads -> bounds of its output in float32 that they rest on.
        slack: The same operation -> slack, [batch, *shape]: see `Given.slack`.
        finite: Whether float32 cannot overflow, [batch].
        sizes: Of every operation.
    """

    assumed: Mapping[int, Interval]
    slack: Tensors
    finite: Bool[Tensor, " batch"]
    sizes: tuple[Sizes, ...] = field(repr=False)

    def confirms(self, hidden: Mapping[int, Interval]) -> Bool[Tensor, " batch"]:
        """Whether pre-activation bounds that were found with this slack lie within what was assumed.

        Slack of an operation rests on bounds of those before it alone: where each lies within what was assumed of it,
        all hold, by induction over the operations.
        """
        good = self.finite
        for index, bounds in self.assumed.items():
            inside = (hidden[index].lower >= bounds.lower) & (hidden[index].upper <= bounds.upper)
            good = good & inside.flatten(1).all(1)
        return good

    def charges(self, forms: int = 1) -> Charges:
        """What is charged for the parts of rows, each of which is a mean of so many forms."""
        last = self.sizes[-1]
        # The sum of weighted forms; of one, nothing is summed.
        factor = last.factor_after(forms + 1 if forms > 1 else 0)
        multipliers = {i: slack + factor * self.sizes[i].paths for i, slack in self.slack.items()}
        return Charges(last.error + factor * last.paths, multipliers, factor)

    def loss(
        self, spec: Float[Tensor, "batch rows outputs"], multipliers: Tensors | None = None
    ) -> Float[Tensor, "batch rows"]:
        """What lower bounds of the specification's rows, found with this slack, may be too large by.

        Args:
            spec: [batch, rows, outputs], float64.
            multipliers: Of split constraints, see `Given.multipliers`: they make rows larger.
        """
        charges = self.charges()
        lost = (spec.abs() @ charges.outputs[..., None])[..., 0]
        for index, beta in (multipliers or {}).items():
            beta = beta.clamp(min=0)
            beta = beta if beta.dim() == self.slack[index].dim() + 1 else beta[:, None]
            lost = lost + (beta * charges.multipliers[index][:, None]).flatten(2).sum(-1)
        return lost * UPWARD + FLOOR

    def with_lines_of(self, before: Rounding) -> Rounding:
        """The same errors, for lines between bounds that were found with the larger slack of before.

        Their ends may be further away than the sums of products of these smaller errors.
        """
        pairs = zip(self.sizes, before.sizes, strict=True)
        sizes = tuple(replace(own, paths=torch.maximum(own.paths, other.paths)) for own, other in pairs)
        return replace(self, slack={i: sizes[i].slack for i in self.slack}, sizes=sizes)

    def __getitem__(self, images: Tensor) -> Rounding:
        """Of some images, perhaps several times: of parts of their boxes, for example."""

        def pick(x: Sizes) -> Sizes:
            return replace(x, value=x.value[images], error=x.error[images], finite=x.finite[images])

        assumed = {i: z.map(lambda x: x[images]) for i, z in self.assumed.items()}
        slack = {i: x[images] for i, x in self.slack.items()}
        return Rounding(assumed, slack, self.finite[images], tuple(pick(x) for x in self.sizes))


def assume(hidden: Mapping[int, Interval]) -> dict[int, Interval]:
    """Pre-activation bounds with room for rounding errors, to be confirmed later."""

    def wider(z: Interval) -> Interval:
        room = ROOM * size(z).flatten(1).amax(1) + ROOM**4
        room = room.reshape(-1, *[1] * (z.lower.dim() - 1))
        return Interval(z.lower - room, z.upper + room)

    return {index: wider(z) for index, z in hidden.items()}


def round_errors(
    graph: Graph, params: Params, box: Box, assumed: Mapping[int, Interval], slopes: Tensors | None = None
) -> Rounding:
    """Bounds all rounding errors: of the network in float32, and of what bounds it in float64.

    Args:
        graph: The network.
        params: Its parameters in float64, each one a number of float32; see `Relaxation.bound`.
        box: Inputs, float64; the numbers of float32 in it are meant.
        assumed: Operation that an activation reads -> bounds of its output in float32, each [batch, *shape], from
            `assume` or known.
        slopes: Activation -> lower slopes that are chosen for it, if any; see `Given.slopes`.

    Raises:
        UnsupportedOperation: If nobody has counted the rounding errors of one of its operations.
    """
    with torch.no_grad():
        sizes = propagate_sizes(graph, graph.values(params, box.lower), box, assumed, slopes or {})
    slack = {index: sizes[index].slack for index in assumed}
    return Rounding(dict(assumed), slack, sizes[-1].finite, tuple(sizes))
