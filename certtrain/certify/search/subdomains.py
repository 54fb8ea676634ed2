"""Open subdomains, in tensors: what is decided of each, and what its parent chose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from certtrain.bounds.optimised.choice import Choice
from certtrain.certify.search.pool import Parts


@dataclass(frozen=True)
class Subdomains(Parts):
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
