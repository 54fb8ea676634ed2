"""Adam on slopes and multipliers, every row by itself; the best that it met counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.optimised import kernels
from certtrain.bounds.optimised.passes import Backward, Start, backward, forward
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.optimised.space import Space
from certtrain.deadline import check_deadline
from certtrain.networks.kernels import is_transformed


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
    state, record = (
        _Adam(rates),
        _Together() if is_transformed(rows.start.data, choice.slopes, *rows.region.tensors) else _Apart(),
    )
    for left in range(steps, -1, -1):
        found, values = rows.evaluated(choice) if left else (rows.lower(choice), {})
        record.add(found, choice)
        if not left or (enough is not None and bool((record.lower > enough).all())):
            break
        choice = state.step(rows, choice, found, values)
    return record.best()


class _Together:
    """The best so far as tensors: nothing depends on which it is."""

    def __init__(self) -> None:
        self._best: Best | None = None

    def add(self, found: Backward, choice: Choice) -> None:
        best = self._best
        self._best = Best(found.lower, choice, found.corner) if best is None else best.better(found, choice)

    @property
    def lower(self) -> Tensor:
        return self.best().lower

    def best(self) -> Best:
        assert self._best is not None
        return self._best


class _Apart:
    """All that was met, and which of them is best for each row: to be put together once."""

    def __init__(self) -> None:
        self._met: list[Best] = []
        self.lower = self._source = torch.empty(0)

    def add(self, found: Backward, choice: Choice) -> None:
        if self._met:
            higher = found.lower > self.lower
            self.lower = torch.where(higher, found.lower, self.lower)
            self._source = torch.where(higher, len(self._met), self._source)
        else:
            self.lower = found.lower
            self._source = torch.zeros(len(found.lower), dtype=torch.int64, device=found.lower.device)
        self._met.append(Best(found.lower, choice, found.corner))

    def best(self) -> Best:
        last = len(self._met) - 1
        best = self._met[last]
        corner, choice = best.corner, best.choice
        for number in self._source.unique().tolist():
            if number == last:
                continue
            rows = (self._source == number).nonzero().flatten()
            other = self._met[number][rows]
            corner = corner.index_copy(0, rows, other.corner)
            choice = choice.replaced(rows, other.choice)
        return Best(self.lower, choice, corner)


class _Adam:
    """Kingma and Ba, arXiv 1412.6980, upwards; slopes and multipliers keep to what is sound."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._count = 0
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._kept: dict[str, Tensor] = {}

    def step(self, rows: Rows, choice: Choice, found: Backward, values: Mapping[int, Tensor]) -> Choice:
        """The next choice.

        Args:
            rows: What is bounded.
            choice: The last one.
            found: Bounds at it.
            values: See `Rows.evaluated`.
        """
        rates, decay = self._rates, self._rates.decay**self._count
        self._count += 1
        fused = self._fused(rows, choice, found, values, decay)
        by_weights = rows.derivatives_in_weights(choice, values)
        if fused is None:
            by = rows.derivatives(choice, found, values)
            slopes = self._moved("slopes", choice.slopes, by.slopes, decay * rates.slopes).clamp(0, 1)
            multipliers = choice.multipliers
            if multipliers is not None and by.multipliers is not None:
                multipliers = self._moved("multipliers", multipliers, by.multipliers, decay * rates.multipliers)
                multipliers = multipliers.clamp(min=0)
            fused = Choice(slopes, multipliers)
        weights = choice.weights
        if weights is not None and by_weights is not None:
            weights = self._moved("weights", weights, by_weights, decay * rates.weights).clamp(min=1e-6)
            weights = weights / weights.sum(1, keepdim=True)
        return Choice(fused.slopes, fused.multipliers, weights)

    def _fused(
        self, rows: Rows, choice: Choice, found: Backward, values: Mapping[int, Tensor], decay: float
    ) -> Choice | None:
        """Slopes and multipliers moved by compiled code; None where there is none for this."""
        slopes, multipliers, signs = choice.slopes.clone(), choice.multipliers, rows.signs
        multipliers = None if multipliers is None else multipliers.clone()
        if "free" not in self._kept:
            self._kept["free"] = rows.free.to(slopes.dtype)
        names = ("slopes",) if signs is None else ("slopes", "multipliers")
        moments = [x for name in names for x in self._moments.setdefault(name, _zeros(slopes))]
        factors = tuple(decay * rate * self._correction for rate in (self._rates.slopes, self._rates.multipliers))
        moved = [slopes, *moments[:2]] if signs is None or multipliers is None else [slopes, *moments[:2], multipliers]
        moved += moments[2:]
        for part in rows.space.parts:
            own = part.columns
            done = kernels.step(
                part.gather(found.coefficients[part.activation]),
                part.gather(values[part.read]),
                self._kept["free"][:, own],
                None if signs is None else signs[:, own],
                [x[:, own] for x in moved],
                factors,  # type: ignore[arg-type]
            )
            if not done:
                return None
        return Choice(slopes, multipliers)

    @property
    def _correction(self) -> float:
        """Both moments begin at zero: what corrects for that is one factor."""
        return (1 - kernels.SCALE**self._count) ** 0.5 / (1 - kernels.MOMENTUM**self._count)

    def _moved(self, name: str, x: Tensor, by: Tensor, rate: float) -> Tensor:
        mean, square = self._moments.get(name, _zeros(by))
        mean, square = torch.lerp(by, mean, kernels.MOMENTUM), torch.lerp(by * by, square, kernels.SCALE)
        self._moments[name] = mean, square
        return torch.add(x, mean * (square + kernels.TINY).rsqrt(), alpha=rate * self._correction)


def _zeros(like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(like), torch.zeros_like(like)
