"""Adam on slopes and multipliers, every row by itself; the best that it met counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from certtrain.bounds.optimised import kernels
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.passes import Backward
from certtrain.networks.kernels import is_transformed


@dataclass(frozen=True)
class Rates:
    """How far a step goes at first, and what is left of it after each."""

    slopes: float = 0.25
    multipliers: float = 0.1
    weights: float = 0.1
    decay: float = 0.95


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
            choice.with_other(self.choice, lambda new, old: torch.where(higher[:, None], new, old)),
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
    transformed = is_transformed(rows.start.data, choice.slopes, *rows.region.tensors)
    state, record = Adam(rates), _Together() if transformed else _Apart()
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
            put = partial(_put, rows)
            other = self._met[number][rows]
            corner, choice = put(corner, other.corner), choice.with_other(other.choice, put)
        return Best(self.lower, choice, corner)


def _put(rows: Tensor, into: Tensor, values: Tensor) -> Tensor:
    return into.index_copy(0, rows, values)


class Adam:
    """Kingma and Ba, arXiv 1412.6980, upwards; slopes and multipliers keep to what is sound."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._count = 0
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}

    def step(self, rows: Rows, choice: Choice, found: Backward, values: Mapping[int, Tensor]) -> Choice:
        """The next choice.

        Args:
            rows: What is bounded.
            choice: The last one.
            found: Bounds at it.
            values: See `Rows.evaluated`.
        """
        self._count += 1
        decay = self.decay
        rates = Rates(*(decay * rate for rate in (self._rates.slopes, self._rates.multipliers, self._rates.weights)))
        if kernels.covers(choice.slopes, *found.coefficients.values(), *values.values()):
            moved = self._fused(rows, choice, found, values, rates)
        else:
            moved = self._by_tensors(rows, choice, found, values, rates)
        weights, by_weights = choice.weights, rows.derivatives_in_weights(choice, values)
        if weights is not None and by_weights is not None:
            weights = self.moved("weights", weights, by_weights, rates.weights).clamp(min=1e-6)
            if rows.total is not None:
                weights = weights * (rows.total / weights.sum(1, keepdim=True))
        return replace(moved, weights=weights)

    def _by_tensors(
        self, rows: Rows, choice: Choice, found: Backward, values: Mapping[int, Tensor], rates: Rates
    ) -> Choice:
        by, multipliers = rows.derivatives(choice, found, values), choice.multipliers
        slopes = self.moved("slopes", choice.slopes, by.slopes, rates.slopes).clamp(0, 1)
        if multipliers is not None and by.multipliers is not None:
            multipliers = self.moved("multipliers", multipliers, by.multipliers, rates.multipliers).clamp(min=0)
        return Choice(slopes, multipliers)

    def _fused(self, rows: Rows, choice: Choice, found: Backward, values: Mapping[int, Tensor], rates: Rates) -> Choice:
        """The same by compiled code, in one pass over memory."""
        slopes, multipliers, signs = choice.slopes.clone(), None, None
        moved = [slopes, *self._moments_of("slopes", slopes)]
        if choice.multipliers is not None and rows.signs is not None:
            multipliers, signs = choice.multipliers.clone(), rows.signs
            moved += [multipliers, *self._moments_of("multipliers", slopes)]
        factors = self._correction * rates.slopes, self._correction * rates.multipliers
        for part in rows.space.parts:
            own = part.columns
            kernels.step(
                part.gather(found.coefficients[part.activation]),
                part.gather(values[part.read]),
                rows.mask[:, own],
                None if signs is None else signs[:, own],
                [x[:, own] for x in moved],
                factors,
            )
        return Choice(slopes, multipliers if multipliers is not None else choice.multipliers)

    @property
    def decay(self) -> float:
        """What is left of the rates in the step that was taken last."""
        return self._rates.decay ** (self._count - 1)

    @property
    def _correction(self) -> float:
        """Both moments begin at zero: what corrects for that is one factor."""
        return (1 - kernels.SCALE**self._count) ** 0.5 / (1 - kernels.MOMENTUM**self._count)

    def moved(self, name: str, x: Tensor, by: Tensor, rate: float) -> Tensor:
        """One tensor, further along its derivative, as part of the last `step`; its moments go by its name."""
        mean, square = self._moments_of(name, by)
        mean, square = torch.lerp(by, mean, kernels.MOMENTUM), torch.lerp(by * by, square, kernels.SCALE)
        self._moments[name] = mean, square
        return torch.add(x, mean * (square + kernels.TINY).rsqrt(), alpha=rate * self._correction)

    def _moments_of(self, name: str, like: Tensor) -> tuple[Tensor, Tensor]:
        if name not in self._moments:
            self._moments[name] = torch.zeros_like(like), torch.zeros_like(like)
        return self._moments[name]
