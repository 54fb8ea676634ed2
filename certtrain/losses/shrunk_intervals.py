"""Intervals whose crossing ReLUs are made smaller than they are: for training alone, they bound nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from certtrain.activations import Interval, ReLU
from certtrain.bounds.analysis import Given
from certtrain.bounds.base import Bounds, Box, Relaxation
from certtrain.bounds.relaxation.ibp import IBP
from certtrain.errors import ConfigError
from certtrain.losses.options import check_number
from certtrain.networks.graph import Graph, Params


@dataclass(frozen=True)
class _Shrinking(Given):
    """Nothing is known; what a ReLU reads loses a share of its upper bound where it crosses zero.

    Attributes:
        of: Operations that ReLUs read.
        share: Of the upper bound that is taken off.
    """

    of: frozenset[int] = field(default_factory=frozenset)
    share: float = 0.0

    def refine(self, index: int, found: Interval) -> Interval:
        """See `Given`; the result holds for no set of inputs."""
        found = super().refine(index, found)
        if index not in self.of:
            return found
        crossing = (found.lower < 0) & (found.upper > 0)
        return Interval(found.lower, found.upper.where(~crossing, (1 - self.share) * found.upper))


@dataclass(frozen=True)
class ShrunkIntervals(IBP):
    """IBP in which crossing ReLUs lose a share c of their upper bounds: u becomes (1 - c) u.

    As in the public code of TAPS (eth-sri/TAPS, relu_shrinkage), which CTBench's SABR and STAPS use at 2/255 with
    c = 0.8. It is in no registry: nothing may be certified with it.

    Attributes:
        share: c in [0, 1].

    Raises:
        ConfigError: If c is out of range.
    """

    share: float = 0.0

    def __post_init__(self) -> None:
        check_number("relu_shrinkage", self.share, high=1.0)

    def _bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None, given: Given
    ) -> tuple[Bounds, list[Interval]]:
        relus = frozenset(op.inputs[0] for _, op in graph.activations if isinstance(op.function, ReLU))
        return super()._bound(graph, params, box, spec, _Shrinking(**vars(given), of=relus, share=self.share))


def shrunk(relaxation: Relaxation, share: float) -> Relaxation:
    """A relaxation whose crossing ReLUs are shrunk; itself, if by nothing.

    Raises:
        ConfigError: If it has no intervals to shrink.
    """
    if share == 0:
        return relaxation
    if not isinstance(relaxation, IBP):
        raise ConfigError("loss.relu_shrinkage shrinks intervals: it needs relaxation=ibp (with its native backend)")
    return ShrunkIntervals(share)
