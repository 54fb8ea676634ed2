"""What rows chose, as it is kept until they are taken up again: a number of half precision for each column.

Where nothing is decided, a row chooses a slope, and has no multiplier; where something is, a multiplier, and the slope
follows. Multipliers are kept in units of the root's rows, whatever units its goals are in. It is where an optimisation
goes on, and no bound rests on it: rounding it costs nothing but a little of its progress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.optimised.choice import Choice
from certtrain.certify.search.root import Root

LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class KeptChoice:
    """A choice of rows whose decisions are known.

    Attributes:
        values: float16, [rows, columns]: slopes where nothing is decided, multipliers over `unit` elsewhere.
        weights: Of forms, as they were chosen; None where there are none.
        unit: Of multipliers.
    """

    values: Tensor
    weights: Tensor | None
    unit: float = 1.0

    @staticmethod
    def of(choice: Choice, decisions: Tensor, unit: float) -> KeptChoice:
        """Of rows with decisions, [rows or 1, columns], see `Root.rows`, in units of `Root.unit`."""
        assert choice.multipliers is not None, "rows begin with multipliers"
        values = torch.where(decisions == 0, choice.slopes, choice.multipliers / unit)
        return KeptChoice(half(values), choice.weights, unit)

    def choice(self, root: Root, decisions: Tensor) -> Choice:
        """What was kept, float32.

        Args:
            root: What the rows are bounded on.
            decisions: Those that it was kept with.
        """
        values = self.values.float()
        slopes = root.single.slopes(decisions, values, root.free)
        return Choice(slopes, torch.where(decisions == 0, 0.0, values * self.unit), self.weights)

    def map(self, function: Callable[[Tensor], Tensor]) -> KeptChoice:
        """The same function of all that there is."""
        weights = None if self.weights is None else function(self.weights)
        return KeptChoice(function(self.values), weights, self.unit)

    @staticmethod
    def joined(parts: Sequence[KeptChoice]) -> KeptChoice:
        """Rows after rows, in one unit, of which all have weights or none."""
        weights = [part.weights for part in parts if part.weights is not None]
        values = torch.cat([part.values for part in parts])
        return KeptChoice(values, torch.cat(weights) if weights else None, parts[0].unit)

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return self.values.nbytes + (0 if self.weights is None else self.weights.nbytes)


def half(x: Tensor) -> Tensor:
    """In half precision; of what is larger than that goes, the largest number there is."""
    return x.clamp(-LARGEST, LARGEST).half()
