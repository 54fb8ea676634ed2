"""The whole box of one image, bounded once; subdomains keep its pre-activation bounds, clamped by their splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds import Box
from certtrain.bounds.analysis import Tensors
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.passes import Start
from certtrain.bounds.optimised.region import Held, Region, zero_outputs
from certtrain.bounds.optimised.space import Part, Space
from certtrain.bounds.rounding import Rounding
from certtrain.certify.counterexamples import float32_inside
from certtrain.certify.search.charges import Charged
from certtrain.networks import Graph, Params
from certtrain.networks.pruning import Pruned, prune

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
        below: Lower intercepts; None where all are zero: where lines need no room for rounding errors.
        goals: What is to be refuted.
    """

    region: Region
    lower: Tensor
    upper: Tensor
    intercept: Tensor
    below: Tensor | None
    goals: Goals

    @staticmethod
    def of(region: Region, space: Space, goals: Goals) -> Relaxed:
        """From the root's region, one row."""

        def columns(pick: str) -> Tensor:
            return space.gather(lambda part: getattr(region.held[part.activation], pick), region.center)

        roomy = any(region.held[part.activation].lower_intercept is not None for part in space.parts)
        below = columns("lower_intercept") if roomy else None
        return Relaxed(region, columns("lower"), columns("upper"), columns("intercept"), below, goals)

    def lines(self, decisions: Tensor, slopes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Upper slopes, upper intercepts and lower intercepts at the columns, [subdomains, columns].

        An active neuron is z, which may be off by the rounding errors that its root's lines have room for: `below` is
        minus these wherever something may be decided. An inactive one is zero without error.

        Args:
            decisions: See `Root.rows`.
            slopes: Lower ones, if they are chosen already: then their lines are only as much lower as these demand.
        """
        undecided, active = decisions == 0, (decisions > 0).to(self.lower.dtype)
        upper = torch.where(undecided, self.upper, active)
        if self.below is None:
            return upper, torch.where(undecided, self.intercept, 0.0), None
        steepest = torch.where(undecided, 1.0, active) if slopes is None else slopes
        below = steepest * self.below
        return upper, torch.where(undecided, self.intercept, -active * self.below), below


@dataclass(frozen=True)
class Root:
    """What all subdomains of one image share.

    Attributes:
        graph: The network.
        values: Precision -> parameters and buffers.
        pruned: The network without neurons that are zero on the whole box: rows are carried through that one, and
            columns are of its neurons.
        space: Columns for neurons that may be split.
        free: Which columns are of such neurons, [1, columns].
        single: In float32, whose pre-activation bounds contain those of float64: in it the search goes on. Its lines
            have no room for rounding errors.
        double: In float64: what decides.
        slack: Room for rounding errors that bounds in float64 have, see `Given.slack`; empty where these do not count.
        charged: What bounds in float64 must exceed.
        outer: Ends of the box, float64, [1, *input_shape].
        inner: Of the largest box of float32 numbers inside it.
    """

    graph: Graph
    values: Mapping[torch.dtype, Params]
    pruned: Pruned
    space: Space
    free: Tensor
    single: Relaxed
    double: Relaxed
    slack: Tensors
    charged: Charged
    outer: tuple[Tensor, Tensor]
    inner: tuple[Tensor, Tensor]

    @staticmethod
    def of(
        graph: Graph,
        values: Mapping[torch.dtype, Params],
        box: Box,
        hidden: Mapping[int, Interval],
        goals: Goals,
        rounding: Rounding | None = None,
    ) -> Root:
        """From float64 pre-activation bounds of one image.

        Args:
            graph: The network.
            values: Precision -> parameters and buffers.
            box: Of one image, float64.
            hidden: Operation that an activation reads -> bounds, float64.
            goals: float64.
            rounding: Errors on this box that pre-activation bounds were found with: subdomains are then proved for the
                network that makes them. None where they are not accounted for.
        """
        pruned = prune(graph, zero_outputs(graph, hidden))

        def left(layers: Mapping[int, Tensor]) -> dict[int, Tensor]:
            return {i: pruned.layer(i, x) for i, x in layers.items()}

        def region(dtype: torch.dtype, box: Box, hidden: Mapping[int, Interval], slack: Tensors) -> Region:
            return Region.of(pruned.graph, pruned.values(values[dtype]), box, hidden, left(slack))

        double = {i: z.map(partial(pruned.layer, i)) for i, z in hidden.items()}
        single = {i: Interval(*outwards(z.lower, z.upper)) for i, z in double.items()}
        around, within = Box(*outwards(box.lower, box.upper)), float32_inside(box)
        slack = {} if rounding is None else rounding.slack
        space = Space.of(pruned.graph, double)
        if rounding is None:
            charged = Charged.nothing(goals.constants, space)
        else:
            charged = Charged.by(rounding, goals.forms, goals.constants, space, pruned)
        return Root(
            graph,
            values,
            pruned,
            space,
            space.free(pruned.graph, double, box.lower),
            Relaxed.of(region(torch.float32, around, single, {}), space, goals.to(torch.float32)),
            Relaxed.of(region(torch.float64, box, double, slack), space, goals),
            slack,
            charged,
            (box.lower, box.upper),
            (within.lower, within.upper),
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input."""
        return self.graph.input_shape

    def columns(self, layer: Callable[[Part], Tensor], like: Tensor) -> Tensor:
        """What stands at the columns, see `Space.gather`, from layers of the whole network."""
        return self.space.gather(lambda part: self.pruned.layer(part.read, layer(part)), like)

    @property
    def bytes_per_row(self) -> int:
        """What bounding one subdomain in float32 holds at once, roughly."""
        return 4 * ROW_COPIES * sum(op.size for op in self.pruned.graph.ops)

    def rows(self, relaxed: Relaxed, decisions: Tensor, goal: Tensor, slopes: Tensor | None = None) -> Rows:
        """Subdomains as rows to bound.

        Args:
            relaxed: `single` or `double`.
            decisions: 1 where z >= 0, -1 where z <= 0, 0 where nothing is decided, [subdomains, columns].
            goal: Of each, [subdomains].
            slopes: See `Relaxed.lines`.
        """
        upper, intercept, below = relaxed.lines(decisions, slopes)
        held = dict(relaxed.region.held)
        for part in self.space.parts:
            line, own = held[part.activation], part.columns
            low = line.lower_intercept
            held[part.activation] = Held(
                line.lower,
                part.spread(upper[:, own], line.upper),
                part.spread(intercept[:, own], line.intercept),
                low if low is None or below is None else part.spread(below[:, own], low),
            )
        region = replace(relaxed.region, held=held)
        forms, constants = relaxed.goals.forms[goal], relaxed.goals.constants[goal]
        if forms.shape[1] == 1:
            forms, constants = forms[:, 0], constants[:, 0]
        start = Start(len(self.graph.ops) - 1, forms, constants)
        return Rows(region, self.space, start, (decisions == 0) & self.free, decisions.to(relaxed.lower.dtype))

    def proved(self, decisions: Tensor, goal: Tensor, choice: Choice) -> Tensor:
        """Lower bounds of subdomains, float64, that what is said of them rests on, [subdomains].

        Args:
            decisions: See `rows`.
            goal: Of each, [subdomains].
            choice: Any: what it must not be, it is not.
        """
        undecided = decisions == 0
        fixed = torch.where(undecided, self.double.lower, (decisions > 0).double())
        slopes = torch.where(undecided & self.free, choice.slopes.double().clamp(0, 1), fixed)
        further = (None if x is None else x.double().clamp(min=0) for x in (choice.multipliers, choice.weights))
        choice = Choice(slopes, *further)
        rows = self.rows(self.double, decisions, goal, slopes)
        return rows.lower(choice).lower - self.charged.of(goal, choice)


def outwards(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """float32 numbers below and above float64 ones."""
    low, high = lower.float(), upper.float()
    low = torch.where(low.double() > lower, low.nextafter(torch.full_like(low, -torch.inf)), low)
    high = torch.where(high.double() < upper, high.nextafter(torch.full_like(high, torch.inf)), high)
    return low, high
