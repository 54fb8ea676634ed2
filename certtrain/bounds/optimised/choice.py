"""What rows may choose, and their bounds and derivatives at a choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from certtrain.bounds.optimised.passes import Backward, Pending, Start, backward, carry, forward
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Space
from certtrain.deadline import check_deadline


@dataclass(frozen=True)
class Choice:
    """What a row chose.

    Attributes:
        slopes: Lower slopes (alpha), [rows, columns], between 0 and 1; the right ones where nothing is free.
        multipliers: Of split constraints (beta), [rows, columns]; not negative. None where nothing is split.
        weights: Of the forms that a row is made of, [rows, forms]; not negative, and of the sum that `Rows` says.
            None where a row is one form.
    """

    slopes: Tensor
    multipliers: Tensor | None = None
    weights: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Choice:
        """The same function of all that there are."""
        further = (None if x is None else function(x) for x in (self.multipliers, self.weights))
        return Choice(function(self.slopes), *further)

    def __getitem__(self, rows: Tensor | slice) -> Choice:
        return self.map(lambda x: x[rows])

    def with_other(self, other: Choice, function: Callable[[Tensor, Tensor], Tensor]) -> Choice:
        """A function of this one's tensors and another's."""
        pairs = ((self.multipliers, other.multipliers), (self.weights, other.weights))
        further = (None if one is None or two is None else function(one, two) for one, two in pairs)
        return Choice(function(self.slopes, other.slopes), *further)


@dataclass(frozen=True)
class Rows:
    """Rows to bound, and what they may choose.

    Attributes:
        region: Their boxes, and lines: those of free neurons have slopes that are replaced.
        space: Columns.
        start: The rows; or of each several, of which a choice makes one: data [rows, forms, *shape], constants
            [rows, forms].
        free: Where a slope may be chosen, [rows or 1, columns].
        signs: What was decided: 1 where z >= 0, -1 where z <= 0, 0 elsewhere, [rows, columns]; None: nothing.
        added: Coefficients of the z at columns that rows have beside their forms, [rows, columns]; None: none.
        total: Sum of the weights of forms; None for any.
    """

    region: Region
    space: Space
    start: Start
    free: Tensor
    signs: Tensor | None = None
    added: Tensor | None = None
    total: float | None = 1.0

    @cached_property
    def mask(self) -> Tensor:
        """`free` in numbers, of the precision of the rows."""
        return self.free.to(self.start.data.dtype)

    def held(self, choice: Choice) -> tuple[Region, Mapping[int, Tensor]]:
        """The region with chosen slopes, and what multipliers add to rows: with it every pass begins.

        Raises:
            OutOfTime: If the deadline has passed.
        """
        check_deadline()
        slopes = {
            part.activation: part.spread(own, self.region.held[part.activation].lower)
            for part, own in self.space.split(choice.slopes)
        }
        shifts, over = {}, self._over_columns(choice)
        if over is not None:
            for part, own in self.space.split(over):
                layer = self.region.held[part.activation].lower
                shifts[part.activation] = part.spread(own, layer.new_zeros((1, *layer.shape[1:])))
        return self.region.with_lower_slopes(slopes), shifts

    def _over_columns(self, choice: Choice) -> Tensor | None:
        """What is added to rows over the z at columns, [rows, columns]."""
        if self.signs is None or choice.multipliers is None:
            return self.added
        over = torch.mul(choice.multipliers, self.signs).neg_()
        return over if self.added is None else over + self.added

    @cached_property
    def _carried(self) -> Pending:
        """Rows of one form each at the first activation: no choice changes what is before it."""
        return carry(self.region, self.start)

    def begun(self, choice: Choice) -> Start | Pending:
        """Where passes begin: at the first activation; at the start where a row is made of several forms first."""
        start, weights = self.start, choice.weights
        if weights is None:
            return self._carried
        data = (weights[:, None] @ start.data.flatten(2)).reshape(len(weights), *start.data.shape[2:])
        return Start(start.index, data, (weights * start.constant).sum(1))

    def passed(self, choice: Choice) -> tuple[Region, Backward]:
        """Bounds at a choice, and the region that has it."""
        region, shifts = self.held(choice)
        return region, backward(region, self.begun(choice), shifts)

    def lower(self, choice: Choice) -> Backward:
        """Bounds at a choice."""
        return self.passed(choice)[1]

    def evaluated(self, choice: Choice) -> tuple[Backward, Mapping[int, Tensor]]:
        """Bounds, and the values of operations that their derivatives are made of."""
        region, found = self.passed(choice)
        return found, forward(region, found)

    def derivatives(self, choice: Choice, found: Backward, values: Mapping[int, Tensor]) -> Choice:
        """Of bounds in what was chosen."""
        space, like = self.space, found.lower[:, None]
        coefficients = self.coefficients(found)
        at = space.gather(lambda part: values[part.read], like)
        by_slopes = coefficients.clamp(min=0) * at * self.free
        return Choice(
            by_slopes, None if self.signs is None else -self.signs * at, self.derivatives_in_weights(choice, values)
        )

    def coefficients(self, found: Backward) -> Tensor:
        """Of the activations at columns, in the rows that were carried back, [rows, columns]."""
        return self.space.gather(lambda part: found.coefficients[part.activation], found.lower[:, None])

    def derivatives_in_weights(self, choice: Choice, values: Mapping[int, Tensor]) -> Tensor | None:
        """Of bounds in the weights of forms, [rows, forms]; None where there is one form."""
        if choice.weights is None:
            return None
        outputs = values[self.start.index].flatten(1)
        return (self.start.data.flatten(2) @ outputs[:, :, None]).squeeze(2) + self.start.constant
