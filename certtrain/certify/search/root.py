"""The whole box of one image, bounded once; subdomains keep its pre-activation bounds, clamped by their splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds import Box
from certtrain.bounds.optimised.choice import Rows
from certtrain.bounds.optimised.passes import Start
from certtrain.bounds.optimised.region import Held, Region
from certtrain.bounds.optimised.space import Space
from certtrain.certify.counterexamples import float32_inside
from certtrain.networks import Graph, Params

# Numbers per output of an operation that a row keeps: coefficients, three lines, values, and what makes them.
ROW_COPIES = 8


@dataclass(frozen=True)
class Goals:
    """Sets of unsafe outputs, {y: forms y + constants <= 0}.

    One is refuted on a box by a positive lower bound of one of its forms, or of a mean of them.

    Attributes:
        forms: [goals, forms, outputs].
        constants: [goals, forms].
    """

    forms: Tensor
    constants: Tensor

    @staticmethod
    def margins(spec: Tensor, limits: Tensor | None = None) -> Goals:
        """One for each row of a specification, which is to lie above a limit: [rows, outputs] and [rows]."""
        return Goals(spec[:, None], torch.zeros_like(spec[:, :1]) if limits is None else -limits[:, None])

    def to(self, dtype: torch.dtype) -> Goals:
        """In another precision."""
        return Goals(self.forms.to(dtype), self.constants.to(dtype))

    def __len__(self) -> int:
        return len(self.forms)

    def largest(self, outputs: Tensor, goal: Tensor) -> Tensor:
        """The largest form of each output's goal, [points]: unsafe where it is not positive."""
        return ((self.forms[goal] @ outputs[:, :, None]).squeeze(2) + self.constants[goal]).amax(1)


@dataclass(frozen=True)
class Relaxed:
    """One box in one precision.

    Attributes:
        region: The box, activations between the lines of the root's bounds; one row for all subdomains.
        lower: Lines at the columns, [1, columns]: lower slopes.
        upper: Upper slopes.
        intercept: Upper intercepts.
        goals: What is to be refuted.
    """

    region: Region
    lower: Tensor
    upper: Tensor
    intercept: Tensor
    goals: Goals

    @staticmethod
    def of(region: Region, space: Space, goals: Goals) -> Relaxed:
        """From the root's region, one row."""

        def columns(pick: str) -> Tensor:
            return space.gather(lambda part: getattr(region.held[part.activation], pick), region.center)

        return Relaxed(region, columns("lower"), columns("upper"), columns("intercept"), goals)


@dataclass(frozen=True)
class Root:
    """What all subdomains of one image share.

    Attributes:
        graph: The network.
        space: Columns for neurons that may be split.
        free: Which columns are of such neurons, [1, columns].
        single: In float32, whose pre-activation bounds contain those of float64: in it the search goes on.
        double: In float64: what decides.
        outer: Ends of the box, float64, [1, *input_shape].
        inner: Of the largest box of float32 numbers inside it.
    """

    graph: Graph
    space: Space
    free: Tensor
    single: Relaxed
    double: Relaxed
    outer: tuple[Tensor, Tensor]
    inner: tuple[Tensor, Tensor]

    @staticmethod
    def of(
        graph: Graph, values: Mapping[torch.dtype, Params], box: Box, hidden: Mapping[int, Interval], goals: Goals
    ) -> Root:
        """From float64 pre-activation bounds of one image.

        Args:
            graph: The network.
            values: Precision -> parameters and buffers.
            box: Of one image, float64.
            hidden: Operation that an activation reads -> bounds, float64.
            goals: float64.
        """
        space = Space.of(graph, hidden)
        single = {i: Interval(*outwards(z.lower, z.upper)) for i, z in hidden.items()}
        around, within = Box(*outwards(box.lower, box.upper)), float32_inside(box)
        wide = Region.of(graph, values[torch.float64], box, hidden)
        narrow = Region.of(graph, values[torch.float32], around, single)
        return Root(
            graph,
            space,
            space.free(graph, hidden, box.lower),
            Relaxed.of(narrow, space, goals.to(torch.float32)),
            Relaxed.of(wide, space, goals),
            (box.lower, box.upper),
            (within.lower, within.upper),
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input."""
        return self.graph.input_shape

    @property
    def bytes_per_row(self) -> int:
        """What bounding one subdomain in float32 holds at once, roughly."""
        return 4 * ROW_COPIES * sum(op.size for op in self.graph.ops)

    def rows(self, relaxed: Relaxed, decisions: Tensor, goal: Tensor) -> Rows:
        """Subdomains as rows to bound.

        Args:
            relaxed: `single` or `double`.
            decisions: 1 where z >= 0, -1 where z <= 0, 0 where nothing is decided, [subdomains, columns].
            goal: Of each, [subdomains].
        """
        dtype = relaxed.goals.forms.dtype
        undecided, active = decisions == 0, (decisions > 0).to(dtype)
        upper = torch.where(undecided, relaxed.upper, active)
        intercept = torch.where(undecided, relaxed.intercept, 0.0)
        held = dict(relaxed.region.held)
        for part in self.space.parts:
            line, own = held[part.activation], part.columns
            held[part.activation] = Held(
                line.lower, part.spread(upper[:, own], line.upper), part.spread(intercept[:, own], line.intercept)
            )
        region = replace(relaxed.region, held=held)
        forms, constants = relaxed.goals.forms[goal], relaxed.goals.constants[goal]
        if forms.shape[1] == 1:
            forms, constants = forms[:, 0], constants[:, 0]
        start = Start(len(self.graph.ops) - 1, forms, constants)
        return Rows(region, self.space, start, undecided & self.free, decisions.to(dtype))


def outwards(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """float32 numbers below and above float64 ones."""
    low, high = lower.float(), upper.float()
    low = torch.where(low.double() > lower, low.nextafter(torch.full_like(low, -torch.inf)), low)
    high = torch.where(high.double() < upper, high.nextafter(torch.full_like(high, torch.inf)), high)
    return low, high
