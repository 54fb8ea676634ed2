"""Envelopes fitted to a row: they are improved together with all that the row chooses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from certtrain.bounds.optimised.ascent import Adam, Rates
from certtrain.bounds.optimised.choice import Choice, Rows
from certtrain.bounds.optimised.envelopes import Blend, Neurons, envelopes_of
from certtrain.bounds.optimised.passes import Backward


@dataclass(frozen=True)
class Fitted:
    """The best that was met.

    Attributes:
        lower: The row's bound.
        choice: Of the row, one.
        blends: Of each layer.
    """

    lower: float
    choice: Choice
    blends: tuple[Blend, ...]


class Fit:
    """Steps of Adam; they can be gone on with.

    Args:
        rows: One, on a region without envelopes.
        neurons: Of the layers that have envelopes, in the precision of the row.
        choice: Where the row begins.
        blends: Where the layers begin.
        rates: Of the steps.
        rate: Of those of blends.
    """

    def __init__(
        self,
        rows: Rows,
        neurons: Sequence[Neurons],
        choice: Choice,
        blends: Sequence[Blend],
        rates: Rates,
        rate: float,
    ) -> None:
        self._rows, self._neurons, self._rate = rows, neurons, rate
        self._choice, self._blends = choice, tuple(blends)
        self._adam = Adam(rates)
        self.best = Fitted(-math.inf, choice, self._blends)

    def run(self, steps: int) -> Fitted:
        """The best after so many more.

        Raises:
            OutOfTime: If the deadline passes.
        """
        for _ in range(steps):
            rows = self._rows
            envelopes = envelopes_of(self._neurons, self._blends, rows.free)
            rows = replace(rows, region=rows.region.with_envelopes(envelopes))
            found, values = rows.evaluated(self._choice)
            if (lower := float(found.lower)) > self.best.lower:
                self.best = Fitted(lower, self._choice, self._blends)
            by = [self._derivative(place, found, values) for place in range(len(self._neurons))]
            self._choice = self._adam.step(rows, self._choice, found, values)
            self._blends = tuple(self._moved(place, one) for place, one in enumerate(by))
        return self.best

    def _derivative(self, place: int, found: Backward, values: Mapping[int, Tensor]) -> Blend:
        own, rows = self._neurons[place], self._rows
        part = own.part
        asked = part.gather(found.coefficients[part.activation]).clamp(max=0) * rows.mask[:, part.columns]
        return own.derivative(self._blends[place], asked, rows.region.held[part.activation], values)

    def _moved(self, place: int, by: Blend) -> Blend:
        rate = self._rate * self._adam.decay

        def moved(name: str, x: Tensor, own: Tensor) -> Tensor:
            return self._adam.moved(f"{name} {place}", x, own, rate).clamp(0, 1)

        old = self._blends[place]
        return Blend(moved("shares", old.shares, by.shares), moved("taken", old.taken, by.taken))
