"""Adam on slopes and multipliers, every row by itself; the best that it met counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
