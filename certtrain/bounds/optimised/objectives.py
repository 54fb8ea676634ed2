"""Objectives: the rows over an operation's output that bounds are asked of, whichever way they are carried."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from certtrain.bounds.optimised.passes import Start


class Objective(ABC):
    """Rows over an operation's output."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, rows: slice | Tensor) -> Objective: ...

    @abstractmethod
    def to(self, precision: torch.dtype) -> Objective:
        """In another precision, as constants."""

    @abstractmethod
    def start(self, index: int, shape: tuple[int, ...]) -> Start:
        """Their coefficients.

        Args:
            index: The operation.
            shape: Of its output.
        """


@dataclass(frozen=True)
class UnitRows(Objective):
    """Multiples of one element each: of a large layer, their coefficients are nearly all zeros.

    Attributes:
        places: The elements, flattened, [rows].
        factors: [rows].
    """

    places: Tensor
    factors: Tensor

    @staticmethod
    def both_sides(places: Tensor, like: Tensor) -> UnitRows:
        """Some elements, then their negatives; `like` gives the dtype."""
        one = torch.ones_like(places, dtype=like.dtype)
        return UnitRows(places.repeat(2), torch.cat([one, -one]))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: slice | Tensor) -> UnitRows:
        return UnitRows(self.places[rows], self.factors[rows])

    def to(self, precision: torch.dtype) -> UnitRows:
        """See `Objective`."""
        return UnitRows(self.places, self.factors.detach().to(precision))

    def start(self, index: int, shape: tuple[int, ...]) -> Start:
        """See `Objective`."""
        data = self.factors.new_zeros((len(self), prod(shape))).scatter(1, self.places[:, None], self.factors[:, None])
        return Start(index, data.reshape(-1, *shape), self.factors * 0)


@dataclass(frozen=True)
class FullRows(Objective):
    """Of several elements each.

    Attributes:
        data: Coefficients [rows, *shape].
    """

    data: Tensor

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: slice | Tensor) -> FullRows:
        return FullRows(self.data[rows])

    def to(self, precision: torch.dtype) -> FullRows:
        """See `Objective`."""
        return FullRows(self.data.detach().to(precision))

    def start(self, index: int, shape: tuple[int, ...]) -> Start:
        """See `Objective`."""
        return Start(index, self.data, self.data.flatten(1)[:, 0] * 0)
