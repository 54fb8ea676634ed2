"""What is to be refuted, and the box of an image in one precision, with the lines around what may be decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds.optimised.choice import Rows
from certtrain.bounds.optimised.envelopes import Blend, Neurons, envelopes_of
from certtrain.bounds.optimised.passes import Start
from certtrain.bounds.optimised.region import Envelope, Held, Region
from certtrain.bounds.optimised.space import Space


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
        region: The box, activations between the lines of the root's bounds; one row for all subdomains. Its network may
            be a smaller one that is the same on this box.
        space: Columns for neurons that may be split, as that network has them.
        lower: Lines at the columns, [1, columns]: lower slopes.
        upper: Upper slopes.
        intercept: Upper intercepts.
        below: Lower intercepts; None where all are zero: where lines need no room for rounding errors.
        goals: What is to be refuted.
    """

    region: Region
    space: Space
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
        return Relaxed(region, space, columns("lower"), columns("upper"), columns("intercept"), below, goals)

    def between(self, bounds: Interval, slack: Tensor) -> Relaxed:
        """With lines between other bounds, and without envelopes.

        Args:
            bounds: At the columns, [1, columns]; where they are linear, lines stay what they were: a decision says so.
            slack: At the columns, [1, columns], see `Held.between`.
        """
        functions = {index: op.function for index, op in self.region.graph.activations}
        held = dict(self.region.held)
        for part in self.space.parts:
            own = Interval(bounds.lower[:, part.columns], bounds.upper[:, part.columns])
            old = held[part.activation]
            open_ = functions[part.activation].undecided(own)
            new = Held.between(functions[part.activation], own, None if self.below is None else slack[:, part.columns])
            pairs = zip(new.tensors, old.tensors, strict=True)
            found = [part.spread(torch.where(open_, x, part.gather(y)), y) for x, y in pairs]
            held[part.activation] = Held(*found)
        return Relaxed.of(replace(self.region, held=held, envelopes={}), self.space, self.goals)

    def with_envelopes(self, neurons: Sequence[Neurons], blends: Sequence[Blend], free: Tensor) -> Relaxed:
        """With envelopes in place of upper lines.

        Args:
            neurons: Of each layer that has some.
            blends: Of each.
            free: Which columns may have one, [1, columns].
        """
        assert self.below is None, "envelopes have no room for rounding errors"
        dtype = self.lower.dtype
        own = envelopes_of([one.to(dtype) for one in neurons], [one.to(dtype) for one in blends], free)
        return Relaxed.of(self.region.with_envelopes(own), self.space, self.goals)

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

    def slopes(self, decisions: Tensor, chosen: Tensor, free: Tensor) -> Tensor:
        """Lower slopes at the columns, [rows, columns]: those chosen, but where there is nothing to choose.

        Args:
            decisions: See `Root.rows`.
            chosen: [rows, columns], between 0 and 1.
            free: Which columns are of neurons that may be split, [1, columns].
        """
        undecided = decisions == 0
        fixed = torch.where(undecided, self.lower, (decisions > 0).to(self.lower.dtype))
        return torch.where(undecided & free, chosen, fixed)

    def rows(self, decisions: Tensor, goal: Tensor, free: Tensor, slopes: Tensor | None = None) -> Rows:
        """Subdomains as rows to bound.

        Args:
            decisions: 1 where z >= 0, -1 where z <= 0, 0 where nothing is decided, [subdomains, columns].
            goal: Of each, [subdomains].
            free: Which columns are of neurons that may be split, [1, columns].
            slopes: See `lines`.
        """
        upper, intercept, below = self.lines(decisions, slopes)
        held = dict(self.region.held)
        for part in self.space.parts:
            line, own = held[part.activation], part.columns
            low = line.lower_intercept
            held[part.activation] = Held(
                line.lower,
                part.spread(upper[:, own], line.upper),
                part.spread(intercept[:, own], line.intercept),
                low if low is None or below is None else part.spread(below[:, own], low),
            )
        forms, constants = self.goals.forms[goal], self.goals.constants[goal]
        if forms.shape[1] == 1:
            forms, constants = forms[:, 0], constants[:, 0]
        start = Start(self.output, forms, constants)
        region = replace(self.region, held=held, envelopes=self._envelopes(decisions))
        return Rows(region, self.space, start, (decisions == 0) & free, decisions.to(self.lower.dtype))

    def _envelopes(self, decisions: Tensor) -> dict[int, Envelope]:
        """Where nothing is decided: elsewhere lines are exact."""
        held = self.region.envelopes
        return {
            index: replace(own, taken=own.taken * (decisions[:, own.part.columns] == 0)) for index, own in held.items()
        }

    @property
    def output(self) -> int:
        """The network's last operation."""
        return len(self.region.graph.ops) - 1


def outwards(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """float32 numbers below and above float64 ones."""
    low, high = lower.float(), upper.float()
    low = torch.where(low.double() > lower, low.nextafter(torch.full_like(low, -torch.inf)), low)
    high = torch.where(high.double() < upper, high.nextafter(torch.full_like(high, torch.inf)), high)
    return low, high
