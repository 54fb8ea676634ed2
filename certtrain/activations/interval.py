"""Intervals: lower and upper bounds of tensors, element by element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Interval:
    """Lower and upper bounds of one operation's output, each [batch, *shape]."""

    lower: Tensor
    upper: Tensor

    @property
    def center(self) -> Tensor:
        """Midpoint."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return (self.upper - self.lower) / 2

    def intersect(self, other: Interval) -> Interval:
        """The tighter of both, element by element. NaN in either stays NaN."""
        return Interval(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    @staticmethod
    def around(center: Tensor, radius: Tensor) -> Interval:
        """From the midpoint and half the width."""
        return Interval(center - radius, center + radius)

    def map(self, function: Callable[[Tensor], Tensor]) -> Interval:
        """The same function of both; bounds of its values where it never decreases."""
        return Interval(function(self.lower), function(self.upper))

    def __add__(self, other: Interval) -> Interval:
        """Bounds of sums."""
        return Interval(self.lower + other.lower, self.upper + other.upper)

    def __neg__(self) -> Interval:
        """Bounds of the negative."""
        return Interval(-self.upper, -self.lower)

    def scaled(self, factor: Tensor) -> Interval:
        """Bounds of products with fixed numbers of either sign."""
        a, b = self.lower * factor, self.upper * factor
        return Interval(torch.minimum(a, b), torch.maximum(a, b))
