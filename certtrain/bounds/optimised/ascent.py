"""Adam on slopes and multipliers, every row by itself; the best that it met counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.optimised.passes import Backward, Start, backward, forward
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Space
from certtrain.deadline import check_deadline

# Of Adam; the last is far below any square that matters, and far above numbers that processors are slow with.
MOMENTUM, SCALE, TINY = 0.9, 0.99, 1e-16


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
class Rates:
    """How far a step goes at first, and what is left of it after each."""

    slopes: float = 0.25
    multipliers: float = 0.1
    weights: float = 0.1
    decay: float = 0.95


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
            for part, own in self.space.split(-choice.multipliers * self.signs):
                layer = self.region.held[part.activation].lower
                shifts[part.read] = part.spread(own, layer.new_zeros((1, *layer.shape[1:])))
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

    def derivatives(self, choice: Choice) -> tuple[Backward, Choice]:
        """Bounds, and their derivatives in the choice."""
        region, shifts = self.held(choice)
        found = backward(region, self.begun(choice), shifts)
        values, space, like = forward(region, found), self.space, found.lower[:, None]
        coefficients = space.gather(lambda part: found.coefficients[part.activation], like)
        at = space.gather(lambda part: values[part.read], like)
        by_slopes = coefficients.clamp(min=0) * at * self.free
        by_weights = None
        if choice.weights is not None:
            outputs = values[self.start.index].flatten(1)
            by_weights = (self.start.data.flatten(2) @ outputs[:, :, None]).squeeze(2) + self.start.constant
        return found, Choice(by_slopes, None if self.signs is None else -self.signs * at, by_weights)


@dataclass(frozen=True)
class Best:
    """The best of all choices met.

    Attributes:
        lower: Bounds [rows].
        choice: That they belong to.
        corner: The points at which they are attained, [rows, *input_shape].
    """

    lower: Tensor
    choice: Choice
    corner: Tensor

    def better(self, found: Backward, choice: Choice) -> Best:
        """The better of both, row by row; a NaN is never better."""
        higher = found.lower > self.lower
        at = higher.reshape(-1, *[1] * (found.corner.dim() - 1))
        return Best(
            torch.where(higher, found.lower, self.lower),
            choice.where(higher, self.choice),
            torch.where(at, found.corner, self.corner),
        )

    def __getitem__(self, rows: Tensor | slice) -> Best:
        return Best(self.lower[rows], self.choice[rows], self.corner[rows])


def improve(rows: Rows, choice: Choice, steps: int, rates: Rates = Rates(), enough: float | None = None) -> Best:
    """Takes steps of Adam towards higher bounds.

    Args:
        rows: What is bounded.
        choice: Where to begin.
        steps: Evaluations after the first one; none takes the choice as it is.
        rates: Of the steps.
        enough: Ends where all bounds are above this.
    """
    best: Best | None = None
    state = _Adam(rates)
    for step in range(steps + 1):
        if step == steps:
            found, slope = rows.lower(choice), None
        else:
            found, slope = rows.derivatives(choice)
        best = Best(found.lower, choice, found.corner) if best is None else best.better(found, choice)
        if slope is None or (enough is not None and bool((best.lower > enough).all())):
            break
        choice = state.step(choice, slope)
    assert best is not None
    return best


class _Adam:
    """Kingma and Ba, arXiv 1412.6980, upwards; slopes and multipliers keep to what is sound."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._count = 0
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}

    def step(self, choice: Choice, by: Choice) -> Choice:
        """The next choice."""
        decay = self._rates.decay**self._count
        self._count += 1
        slopes = self._moved("slopes", choice.slopes, by.slopes, decay * self._rates.slopes).clamp(0, 1)
        multipliers, weights = choice.multipliers, choice.weights
        if multipliers is not None and by.multipliers is not None:
            moved = self._moved("multipliers", multipliers, by.multipliers, decay * self._rates.multipliers)
            multipliers = moved.clamp(min=0)
        if weights is not None and by.weights is not None:
            weights = self._moved("weights", weights, by.weights, decay * self._rates.weights).clamp(min=1e-6)
            weights = weights / weights.sum(1, keepdim=True)
        return Choice(slopes, multipliers, weights)

    def _moved(self, name: str, x: Tensor, by: Tensor, rate: float) -> Tensor:
        mean, square = self._moments.get(name, (torch.zeros_like(by), torch.zeros_like(by)))
        mean, square = torch.lerp(by, mean, MOMENTUM), torch.lerp(by * by, square, SCALE)
        self._moments[name] = mean, square
        # Both moments begin at zero: what corrects for that is one factor.
        factor = rate * (1 - SCALE**self._count) ** 0.5 / (1 - MOMENTUM**self._count)
        return torch.add(x, mean * (square + TINY).rsqrt(), alpha=factor)
