"""What rows may choose, and their bounds and derivatives at a choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.optimised.passes import Backward, Start, backward, forward
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Space
from certtrain.deadline import check_deadline


@dataclass(frozen=True)
class Choice:
    """What a row chose.

    Attributes:
        slopes: Lower slopes (alpha), [rows, columns], between 0 and 1; the right ones where nothing is free.
        multipliers: Of split constraints (beta), [rows, columns]; not negative. None where nothing is split.
        weights: Of the forms that a row is made of, [rows, forms]; not negative, of sum one. None where there is one.
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

    def replaced(self, rows: Tensor, other: Choice) -> Choice:
        """This one with some rows of another, [rows that are replaced, ...]."""
        return Choice(
            self.slopes.index_copy(0, rows, other.slopes),
            *(
                None if one is None or two is None else one.index_copy(0, rows, two)
                for one, two in ((self.multipliers, other.multipliers), (self.weights, other.weights))
            ),
        )

    def where(self, mask: Tensor, other: Choice) -> Choice:
        """This one's rows where a mask says so, [rows], another's elsewhere."""
        return Choice(
            torch.where(mask[:, None], self.slopes, other.slopes),
            *(
                None if one is None or two is None else torch.where(mask[:, None], one, two)
                for one, two in ((self.multipliers, other.multipliers), (self.weights, other.weights))
            ),
        )


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
    """

    region: Region
    space: Space
    start: Start
    free: Tensor
    signs: Tensor | None = None

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
        shifts = {}
        if self.signs is not None and choice.multipliers is not None:
            for part, own in self.space.split(torch.mul(choice.multipliers, self.signs).neg_()):
                layer = self.region.held[part.activation].lower
                shifts[part.activation] = part.spread(own, layer.new_zeros((1, *layer.shape[1:])))
        return self.region.with_lower_slopes(slopes), shifts

    def begun(self, choice: Choice) -> Start:
        """The rows, made of their forms where there are several."""
        start, weights = self.start, choice.weights
        if weights is None:
            return start
        data = (weights[:, None] @ start.data.flatten(2)).reshape(len(weights), *start.data.shape[2:])
        return Start(start.index, data, (weights * start.constant).sum(1))

    def lower(self, choice: Choice) -> Backward:
        """Bounds at a choice."""
        region, shifts = self.held(choice)
        return backward(region, self.begun(choice), shifts)

    def evaluated(self, choice: Choice) -> tuple[Backward, Mapping[int, Tensor]]:
        """Bounds, and the values of operations that their derivatives are made of."""
        region, shifts = self.held(choice)
        found = backward(region, self.begun(choice), shifts)
        return found, forward(region, found)

    def derivatives(self, choice: Choice, found: Backward, values: Mapping[int, Tensor]) -> Choice:
        """Of bounds in what was chosen."""
        space, like = self.space, found.lower[:, None]
        coefficients = space.gather(lambda part: found.coefficients[part.activation], like)
        at = space.gather(lambda part: values[part.read], like)
        by_slopes = coefficients.clamp(min=0) * at * self.free
        return Choice(
            by_slopes, None if self.signs is None else -self.signs * at, self.derivatives_in_weights(choice, values)
        )

    def derivatives_in_weights(self, choice: Choice, values: Mapping[int, Tensor]) -> Tensor | None:
        """Of bounds in the weights of forms, [rows, forms]; None where there is one form."""
        if choice.weights is None:
            return None
        outputs = values[self.start.index].flatten(1)
        return (self.start.data.flatten(2) @ outputs[:, :, None]).squeeze(2) + self.start.constant
