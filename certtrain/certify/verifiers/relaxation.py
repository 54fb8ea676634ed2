"""A relaxation as a verifier: one bound of all margins."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.bounds import Bounds, Box, Relaxation, Sides, margin_spec
from certtrain.certify.arithmetic import FLOAT64, Arithmetic
from certtrain.certify.network import Network
from certtrain.certify.soundness import check_points
from certtrain.certify.verifiers.base import Proved, Verifier
from certtrain.certify.verifiers.memory import bytes_of_bounds
from certtrain.deadline import OutOfTime, until
from certtrain.networks import Graph


@dataclass(frozen=True)
class RelaxationVerifier(Verifier):
    """Certifies what its relaxation bounds above zero.

    Attributes:
        relaxation: What it computes.
        arithmetic: What a positive margin is worth.

    Raises:
        ConfigError: If the arithmetic cannot judge the relaxation.
    """

    relaxation: Relaxation
    arithmetic: Arithmetic = FLOAT64

    def __post_init__(self) -> None:
        self.arithmetic.check_relaxation(self.relaxation)

    def smallest_margins(self, network: Network, box: Box, labels: Int[Tensor, " batch"], deadline: float) -> Proved:
        """See `Verifier`.

        Computed in float64; the sign is the verdict of its arithmetic. Rows are carried back in pieces, between which
        the deadline is kept; bounds of another backend are computed to their end.
        """
        spec = margin_spec(labels, network.graph.num_outputs)
        try:
            with until(deadline):
                margins = self.arithmetic.smallest_margins(self.relaxation, network, box, spec)
        except OutOfTime:
            return Proved(spec.new_full((len(box),), torch.nan, dtype=torch.float64), torch.zeros(len(box)).bool())
        return Proved(margins, torch.ones(len(box)).bool())

    def bytes_per_image(self, graph: Graph) -> int:
        """See `Verifier`."""
        return bytes_of_bounds(self.relaxation, graph)

    def check(self, network: Network, images: Float[Tensor, "batch *shape"]) -> None:
        """See `Verifier`: bounds of outputs and of margins, on both sides and in both precisions."""
        self.arithmetic.check_network(network)
        check_points(self.name, lambda box, spec, sides: self._bound(network, box, spec, sides), network, images)

    def options(self) -> str:
        """See `Verifier`."""
        kind = type(self.relaxation)
        # The default repr of an object holds its address, which would differ in the next process.
        return (repr(self.relaxation) if is_dataclass(kind) else kind.__qualname__) + self.arithmetic.options

    def judged_in(self, arithmetic: Arithmetic) -> RelaxationVerifier:
        """See `Verifier`."""
        return replace(self, arithmetic=arithmetic)

    def _bound(self, network: Network, box: Box, spec: Tensor | None, sides: Sides) -> Bounds:
        """The relaxation's bounds, in the precision of the box."""
        return self.relaxation.bound(network.graph, network.values[box.lower.dtype], box, spec, sides)
