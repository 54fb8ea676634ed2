"""The members of a population: a centre, moved by noise. They are made when they are evaluated, not all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from certtrain.networks.graph import Params


@dataclass(frozen=True)
class Members(ABC):
    """Members in a fixed order.

    Attributes:
        params: Name -> centre.
        noise: Name -> [draws, *shape].
        per_draw: Members that share one draw.
    """

    per_draw: ClassVar[int]

    params: Params
    noise: Params

    @property
    def draws(self) -> int:
        """How many draws of noise there are."""
        return len(next(iter(self.noise.values())))

    def __len__(self) -> int:
        return self.per_draw * self.draws

    @abstractmethod
    def one(self, member: int) -> Params:
        """Name -> [*shape]."""

    @abstractmethod
    def some(self, start: int, stop: int) -> Params:
        """Name -> [members, *shape] of those from `start` to before `stop`."""

    @abstractmethod
    def first(self, count: int) -> Members:
        """As many members, or fewer where there are fewer."""


@dataclass(frozen=True)
class Drawn(Members):
    """θ + ε_i, one member for each draw."""

    per_draw = 1

    def one(self, member: int) -> Params:
        """See `Members.one`."""
        return {name: p + self.noise[name][member] for name, p in self.params.items()}

    def some(self, start: int, stop: int) -> Params:
        """See `Members.some`."""
        return {name: p + self.noise[name][start:stop] for name, p in self.params.items()}

    def first(self, count: int) -> Drawn:
        """See `Members.first`."""
        return Drawn(self.params, {name: e[:count] for name, e in self.noise.items()})


@dataclass(frozen=True)
class Antithetic(Members):
    """θ + ε_i of all draws, then their twins θ - ε_i."""

    per_draw = 2

    def one(self, member: int) -> Params:
        """See `Members.one`."""
        draw = member % self.draws
        if member < self.draws:
            return {name: p + self.noise[name][draw] for name, p in self.params.items()}
        return {name: p - self.noise[name][draw] for name, p in self.params.items()}

    def some(self, start: int, stop: int) -> Params:
        """See `Members.some`."""
        stop, draws = min(stop, len(self)), self.draws
        plus = slice(min(start, draws), min(stop, draws))
        minus = slice(max(start, draws) - draws, max(stop, draws) - draws)
        count = plus.stop - plus.start
        found = {}
        for name, p in self.params.items():
            moved = torch.empty((stop - start, *p.shape), dtype=p.dtype, device=p.device)
            torch.add(p, self.noise[name][plus], out=moved[:count])
            torch.sub(p, self.noise[name][minus], out=moved[count:])
            found[name] = moved
        return found

    def first(self, count: int) -> Antithetic:
        """See `Members.first`; pairs are not torn apart."""
        return Antithetic(self.params, {name: e[: (count + 1) // 2] for name, e in self.noise.items()})
