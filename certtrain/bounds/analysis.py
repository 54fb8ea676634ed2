"""More than a bare bound: what is known goes in, and pre-activation bounds and lines come out with the bounds.

Complete search, optimised slopes and measurements of tightness use this; `Relaxation.bound` is its shorthand.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from certtrain.activations import Interval, Lines
from certtrain.bounds.base import Bounds, Box, Relaxation, Sides, unchecked
from certtrain.networks.graph import Graph, Params

Tensors = Mapping[int, Tensor]


@dataclass(frozen=True)
class Given:
    """What is known or chosen before bounds are computed; every part may be differentiated through.

    Attributes:
        known: Operation -> bounds of its output, each [batch, *shape], to intersect with.
        splits: Operation that an activation reads -> decisions [batch, *shape]: 1 where its output is not negative,
            -1 where it is not positive, 0 where nothing is decided. Bounds then hold on that part of the box alone,
            and are anything where it is empty.
        slopes: Activation -> lower slopes (alpha), [batch, *shape of its input], for all bounds; or
            [batch, rows, *shape of its input], for the rows of the specification.
        multipliers: Operation that an activation reads, behind the first affine layer -> multipliers (beta) of its
            split constraints, [batch, *shape] or [batch, rows, *shape]; they enter the lower bounds of the
            specification's rows. Negative ones count as zero.
        slack: Operation that an activation reads -> how far its output may be from what the operations before it make
            of the activations before them, [batch, *shape], not negative. Bounds then hold for every network whose
            pre-activations differ by as much: for one that rounds, for example (`rounding`). It widens the bounds
            found of that output (`refine`), and the lines around the activation (`loosen`): an implementation of
            `Analysing` must do both, or verdicts in `certify.arithmetic=sound` are none.
    """

    known: Mapping[int, Interval] = field(default_factory=dict)
    splits: Tensors = field(default_factory=dict)
    slopes: Tensors = field(default_factory=dict)
    multipliers: Tensors = field(default_factory=dict)
    slack: Tensors = field(default_factory=dict)

    def refine(self, index: int, found: Interval) -> Interval:
        """Bounds of an operation's output, widened by its slack, then intersected with what is known and decided."""
        if index in self.slack:
            found = Interval(found.lower - self.slack[index], found.upper + self.slack[index])
        if index in self.known:
            found = found.intersect(self.known[index])
        if index in self.splits:
            decision = self.splits[index]
            found = Interval(
                found.lower.where(decision <= 0, found.lower.clamp(min=0)),
                found.upper.where(decision >= 0, found.upper.clamp(max=0)),
            )
        return found

    def loosen(self, index: int, lines: Lines) -> Lines:
        """Lines around an activation that reads an operation, as lines of what that operation makes without slack.

        The activation is given z + d with |d| <= slack, and lies between the lines at z + d: those at z are as much
        further away as their slopes allow.

        Args:
            index: The operation that the activation reads.
            lines: [batch, *shape of its output].
        """
        if index not in self.slack:
            return lines
        slack = self.slack[index]
        lower, upper = lines.lower_slope.abs() * slack, lines.upper_slope.abs() * slack
        below = -lower if lines.lower_intercept is None else lines.lower_intercept - lower
        return Lines(lines.lower_slope, lines.gap, lines.upper_intercept + upper, below)


NOTHING = Given()


@dataclass(frozen=True)
class Analysis:
    """What a relaxation found.

    Attributes:
        bounds: Of the specification's rows.
        hidden: Operation that an activation reads -> pre-activation bounds, each [batch, *shape], refined by what was
            given.
        held: Activation -> the lines that it was held between, channels last.
    """

    bounds: Bounds
    hidden: Mapping[int, Interval]
    held: Mapping[int, Lines]

    @property
    def lines(self) -> Mapping[int, Lines]:
        """Activation -> the lines that it was held between, [batch, *shape of its input]."""
        return {i: line.map(channels_first) for i, line in self.held.items()}


def channels_first(x: Tensor) -> Tensor:
    """[lead, H, W, C] -> [lead, C, H, W]; layers without two dimensions stay as they are."""
    return x.movedim(-1, 1) if x.dim() == 4 else x


class Analysing(Relaxation):
    """A relaxation that can tell more than bounds; all native ones can."""

    @abstractmethod
    def analyse(
        self,
        graph: Graph,
        params: Params,
        box: Box,
        spec: Tensor | None = None,
        sides: Sides = "both",
        given: Given = NOTHING,
    ) -> Analysis:
        """Bounds `spec @ network(x)` over all x in the box that agree with what is given.

        Args:
            graph: See `Relaxation.bound`.
            params: See `Relaxation.bound`.
            box: See `Relaxation.bound`.
            spec: See `Relaxation.bound`.
            sides: See `Relaxation.bound`.
            given: What is known or chosen.

        Raises:
            ConfigError: If multipliers are given and both sides are asked for, or the relaxation has no rows that
                slopes or multipliers could enter.
        """

    def bound(
        self, graph: Graph, params: Params, box: Box, spec: Tensor | None = None, sides: Sides = "both"
    ) -> Bounds:
        """See `Relaxation.bound`."""
        return unchecked(type(self).analyse)(self, graph, params, box, spec, sides).bounds
