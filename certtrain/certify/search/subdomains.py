"""Subdomains, in tensors: what is decided of each, and what its parent chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from certtrain.bounds.optimised.choice import Choice
from certtrain.certify.search.kept import KeptChoice, half
from certtrain.certify.search.pool import Parts
from certtrain.certify.search.root import Root


@dataclass(frozen=True)
class Subdomains(Parts):
    """Parts of one image's box.

    Attributes:
        decisions: int8, [count, columns], see `Root.rows`.
        choice: Slopes, multipliers and weights of forms, float32.
        lower: Best bounds, [count].
        goal: Of each, [count].
        candidates: Columns that promise most when split, best first, [count, some].
        coefficients: Of their activations, [count, some].
    """

    decisions: Tensor
    choice: Choice
    lower: Tensor
    goal: Tensor
    candidates: Tensor
    coefficients: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Subdomains:
        """The same function of all of them."""
        own = (function(x) for x in (self.lower, self.goal, self.candidates, self.coefficients))
        return Subdomains(function(self.decisions), self.choice.map(function), *own)

    def put_away(self, root: Root) -> Waiting:
        """As they are kept until they are split, parts of a root's box."""
        kept = KeptChoice.of(self.choice, self.decisions, root.unit)
        coefficients = half(self.coefficients / root.unit)
        return Waiting(self.decisions, kept, self.lower, self.goal, self.candidates.int(), coefficients)


@dataclass(frozen=True)
class Waiting(Parts):
    """Open subdomains that take little room, see `Subdomains`; coefficients in units of `Root.unit`."""

    decisions: Tensor
    kept: KeptChoice
    lower: Tensor
    goal: Tensor
    candidates: Tensor
    coefficients: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Waiting:
        """The same function of all of them."""
        own = (function(x) for x in (self.lower, self.goal, self.candidates, self.coefficients))
        return Waiting(function(self.decisions), self.kept.map(function), *own)

    def taken_up(self, root: Root) -> Subdomains:
        """To be split, parts of a root's box."""
        choice, coefficients = self.kept.choice(root, self.decisions), self.coefficients.float() * root.unit
        return Subdomains(self.decisions, choice, self.lower, self.goal, self.candidates.long(), coefficients)
