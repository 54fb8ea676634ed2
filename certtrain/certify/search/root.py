"""The whole box of one image, bounded once; subdomains keep its pre-activation bounds, clamped by their splits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds import Box
from certtrain.bounds.analysis import Tensors
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.collapsing import Collapsed, collapse
from certtrain.bounds.optimised.envelopes import Blend, Neurons
from certtrain.bounds.optimised.neurons import Envelopable
from certtrain.bounds.optimised.region import Region, zero_outputs
from certtrain.bounds.optimised.space import Part, Space
from certtrain.bounds.rounding import Rounding
from certtrain.certify.counterexamples import float32_inside
from certtrain.certify.search.charges import Charged
from certtrain.certify.search.relaxed import Goals, Relaxed, outwards
from certtrain.networks import Graph, Params
from certtrain.networks.pruning import Pruned, prune

# Numbers per output of an operation that a row keeps: coefficients, three lines, values, and what makes them.
ROW_COPIES = 8


@dataclass(frozen=True)
class Root:
    """What all subdomains of one image share.

    Attributes:
        graph: The network.
        values: Precision -> parameters and buffers.
        pruned: The network without neurons that are zero on the whole box.
        space: Columns for neurons that may be split, as that network has them.
        free: Which columns are of such neurons, [1, columns].
        single: In float32, whose pre-activation bounds contain those of float64: in it the search goes on. Its lines
            have no room for rounding errors.
        double: In float64: what decides.
        slack: Room for rounding errors that bounds in float64 have, see `Given.slack`; empty where these do not count.
        charged: What bounds in float64 must exceed.
        envelopable: Layers that can have envelopes; None where rounding is accounted for, which these have no room for.
        bounds: Of the pre-activations at columns, float64, [1, columns].
        decided: What may be taken for decided everywhere, int8, [1, columns], see `rows`.
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
    envelopable: Envelopable | None
    bounds: Interval
    decided: Tensor
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
        double = {i: z.map(partial(pruned.layer, i)) for i, z in hidden.items()}
        single = {i: Interval(*outwards(z.lower, z.upper)) for i, z in double.items()}
        around, within = Box(*outwards(box.lower, box.upper)), float32_inside(box)
        exact = Region.of(pruned.graph, pruned.values(values[torch.float64]), box, double)
        quick = Region.of(pruned.graph, pruned.values(values[torch.float32]), around, single)
        # Where there are no columns to carry along for nothing, or as many as are quick to carry.
        space = Space.of(pruned.graph, double, many=math.inf)
        small = collapse(exact, space)
        if small is None:
            space = Space.of(pruned.graph, double)
        free, searched = space.free(pruned.graph, double, box.lower), _relaxed(small, quick, space, goals)
        slack: Tensors = {}
        if rounding is None:
            charged = Charged.nothing(goals.constants, space)
            proved = _relaxed(small, exact, space, goals)
            own = double if small is None else small.bounds(double, pruned.graph)
            envelopable = Envelopable(proved.region, proved.space, own)
        else:
            envelopable = None
            slack, charged = rounding.slack, Charged.by(rounding, goals.forms, goals.constants, space, pruned)
            # Errors are counted operation by operation, as the network has them.
            roomy = {i: pruned.layer(i, x) for i, x in slack.items()}
            proved = _relaxed(None, Region.of(pruned.graph, exact.values, box, double, roomy), space, goals)
        low = space.gather(lambda part: double[part.read].lower, box.lower)
        high = space.gather(lambda part: double[part.read].upper, box.lower)
        known = Interval(low, high), torch.zeros(free.shape, dtype=torch.int8)
        ends = (box.lower, box.upper), (within.lower, within.upper)
        return Root(graph, values, pruned, space, free, searched, proved, slack, charged, envelopable, *known, *ends)

    def narrowed(self, bounds: Interval) -> Root:
        """The same box, of which only inputs are of interest for which tighter bounds hold.

        Args:
            bounds: At columns, float64, [1, columns]. A neuron that they decide counts as split, for it is decided
                only where it is of interest: elsewhere its line may be anywhere.
        """
        bounds = bounds.intersect(self.bounds)
        on, off = self.free & (bounds.lower >= 0), self.free & (bounds.upper <= 0)
        decided = torch.where(on, 1, torch.where(off, -1, 0)).to(torch.int8)
        slack = self._slack_at_columns()
        single = self.single.between(Interval(*outwards(bounds.lower, bounds.upper)), slack.float())
        double = self.double.between(bounds, slack)
        return replace(self, single=single, double=double, bounds=bounds, decided=decided)

    def with_envelopes(self, blends: Sequence[Blend]) -> Root:
        """With so much of envelopes in place of its upper lines, of each layer that can have some."""
        own = self.neurons, blends, self.free
        single, double = self.single.with_envelopes(*own), self.double.with_envelopes(*own)
        return replace(self, single=single, double=double)

    def _slack_at_columns(self) -> Tensor:
        if not self.slack:
            return torch.zeros_like(self.bounds.lower)
        return self.columns(lambda part: self.slack[part.read], self.bounds.lower)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input."""
        return self.graph.input_shape

    def columns(self, layer: Callable[[Part], Tensor], like: Tensor) -> Tensor:
        """What stands at the columns, see `Space.gather`, from layers of the whole network."""
        return self.space.gather(lambda part: self.pruned.layer(part.read, layer(part)), like)

    @property
    def undecided(self) -> Tensor:
        """Columns of neurons that may be split and are not decided everywhere, [1, columns]."""
        return self.free & (self.decided == 0)

    def with_decisions(self, slopes: Tensor) -> Tensor:
        """Slopes, float32 [rows, columns], but for neurons that are decided everywhere: of these, what they are."""
        return torch.where(self.decided == 0, slopes, (self.decided > 0).float())

    def taken_over(self, choice: Choice) -> Choice:
        """A choice of other bounds of the same box: slopes of neurons that were decided since are what these are."""
        return replace(choice, slopes=self.with_decisions(choice.slopes))

    def first_choice(self, count: int) -> Choice:
        """Of rows of a goal on the whole box, before anything was optimised: lines of least area, equal weights."""
        slopes = self.with_decisions(self.single.lower).expand(count, -1).contiguous()
        forms = self.single.goals.forms.shape[1]
        weights = slopes.new_full((count, forms), 1 / forms) if forms > 1 else None
        return Choice(slopes, torch.zeros_like(slopes), weights)

    @cached_property
    def unit(self) -> float:
        """Of what rows of goals consist of: the root mean square of coefficients of undecided neurons."""
        count = len(self.single.goals)
        rows = self.rows(self.single, self.decided.expand(count, -1), torch.arange(count))
        coefficients = rows.coefficients(rows.lower(self.first_choice(count)))
        size = float(coefficients[:, self.undecided[0]].square().mean().sqrt())
        return size if 0 < size < math.inf else 1.0

    @property
    def neurons(self) -> tuple[Neurons, ...]:
        """Of each layer that can have envelopes, float64."""
        return () if self.envelopable is None else self.envelopable.neurons

    @property
    def weight_count(self) -> int:
        """How many weights layers have that can have envelopes."""
        return 0 if self.envelopable is None else self.envelopable.weight_count

    @property
    def bytes_per_row(self) -> int:
        """What bounding one subdomain in float32 holds at once, roughly."""
        return 4 * ROW_COPIES * sum(op.size for op in self.single.region.graph.ops)

    def rows(self, relaxed: Relaxed, decisions: Tensor, goal: Tensor, slopes: Tensor | None = None) -> Rows:
        """Subdomains as rows to bound, of `single` or `double`: see `Relaxed.rows`."""
        return relaxed.rows(decisions, goal, self.free, slopes)

    def proved(self, decisions: Tensor, goal: Tensor, choice: Choice) -> Tensor:
        """Lower bounds of subdomains, float64, that what is said of them rests on, [subdomains].

        Args:
            decisions: See `rows`.
            goal: Of each, [subdomains].
            choice: Any: what it must not be, it is not.
        """
        choice = self.admissible(decisions, choice)
        rows = self.rows(self.double, decisions, goal, choice.slopes)
        return rows.lower(choice).lower - self.charged.of(goal, choice)

    def admissible(self, decisions: Tensor, choice: Choice) -> Choice:
        """What a choice is in float64, whatever it has where there is nothing to choose."""
        slopes = self.double.slopes(decisions, choice.slopes.double().clamp(0, 1), self.free)
        return Choice(
            slopes, *(None if x is None else x.double().clamp(min=0) for x in (choice.multipliers, choice.weights))
        )


def _relaxed(small: Collapsed | None, region: Region, space: Space, goals: Goals) -> Relaxed:
    """In the region's precision; rows are carried through the smaller network, if there is one."""
    goals = goals.to(region.center.dtype)
    if small is None:
        return Relaxed.of(region, space, goals)
    return Relaxed.of(small.region(region), small.space(space), goals)
