"""Open subdomains, in tensors: what is decided of each, and what its parent chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.optimised.ascent import Choice


@dataclass(frozen=True)
class Subdomains:
    """Parts of one image's box.

    Attributes:
        decisions: int8, [count, columns], see `Root.rows`.
        choice: Slopes, multipliers and weights of forms, float32.
        lower: Best bounds, [count].
        goal: Of each, [count].
        candidates: Columns that promise most when split, best first, [count, some].
    """

    decisions: Tensor
    choice: Choice
    lower: Tensor
    goal: Tensor
    candidates: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Subdomains:
        """The same function of all of them."""
        own = (function(x) for x in (self.lower, self.goal, self.candidates))
        return Subdomains(function(self.decisions), self.choice.map(function), *own)

    def __getitem__(self, which: Tensor | slice) -> Subdomains:
        return self.map(lambda x: x[which])

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def tensors(self) -> list[Tensor]:
        """All that there are."""
        found: list[Tensor] = []
        self.map(lambda x: found.append(x) or x)  # type: ignore[func-returns-value]
        return found

    @staticmethod
    def joined(parts: list[Subdomains]) -> Subdomains:
        """All of several."""
        columns = zip(*(part.tensors for part in parts), strict=True)
        joined = iter([torch.cat(column) for column in columns])
        return parts[0].map(lambda _: next(joined))

    @property
    def nbytes(self) -> int:
        """What they take."""
        return sum(x.nbytes for x in self.tensors)


class Pool:
    """Open subdomains by their bounds: the worst are taken first."""

    def __init__(self) -> None:
        self._parts: list[Subdomains] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def worst(self) -> float:
        """The lowest bound; infinity where none is open."""
        return min((float(part.lower.min()) for part in self._parts), default=float("inf"))

    @property
    def nbytes(self) -> int:
        """What all take."""
        return sum(part.nbytes for part in self._parts)

    def add(self, new: Subdomains) -> None:
        """Keeps them until they are taken."""
        if len(new):
            self._parts.append(new)
            self._count += len(new)

    def take(self, most: int) -> Subdomains:
        """Removes up to so many, of the lowest bounds."""
        everything = Subdomains.joined(self._parts) if len(self._parts) > 1 else self._parts[0]
        if len(everything) <= most:
            self._parts, self._count = [], 0
            return everything
        order = everything.lower.argsort()
        self._parts = [everything[order[most:]]]
        self._count = len(everything) - most
        return everything[order[:most]]
