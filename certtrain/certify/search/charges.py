"""What a bound of a subdomain must exceed: zero, or in sound arithmetic all rounding errors that it may hide."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.bounds.optimised.choice import Choice
from certtrain.bounds.optimised.space import Space
from certtrain.bounds.rounding import Rounding
from certtrain.bounds.rounding.units import FLOOR, UPWARD
from certtrain.networks.pruning import Pruned


@dataclass(frozen=True)
class Charged:
    """What float64 bounds may be too large by.

    Attributes:
        forms: Of each form of each goal, [goals, forms].
        columns: Of each unit of a split's multiplier, [columns].
        least: Of every bound: what underflows where all of it is tiny.
    """

    forms: Tensor
    columns: Tensor
    least: float

    @staticmethod
    def nothing(constants: Tensor, space: Space) -> Charged:
        """Where rounding is not accounted for.

        Args:
            constants: Of the goals, [goals, forms].
            space: Columns.
        """
        return Charged(torch.zeros_like(constants), constants.new_zeros(space.size), 0.0)

    @staticmethod
    def by(rounding: Rounding, forms: Tensor, constants: Tensor, space: Space, pruned: Pruned) -> Charged:
        """Where all rounding errors are.

        Args:
            rounding: Of one image and the whole network, float64: of what it sums, a smaller one sums a part.
            forms: Of the goals, [goals, forms, outputs].
            constants: Of the goals, [goals, forms].
            space: Columns.
            pruned: The network whose neurons they are.
        """
        # Beside its forms, a row may have one neuron.
        charges = rounding.charges(forms.shape[1] + 1)
        each = (forms.abs() @ charges.outputs[0] + charges.constant * constants.abs()) * UPWARD + FLOOR
        columns = space.gather(lambda part: pruned.layer(part.read, charges.multipliers[part.read]), constants[:1])[0]
        return Charged(each, columns, FLOOR)

    def of(self, goal: Tensor, choice: Choice) -> Tensor:
        """What subdomains' bounds may be too large by, [subdomains].

        Args:
            goal: Of each, [subdomains].
            choice: float64; nothing of it is negative.
        """
        each = self.forms[goal]
        lost = each[:, 0] if choice.weights is None else (choice.weights * each).sum(1)
        if choice.multipliers is not None:
            lost = lost + choice.multipliers @ self.columns
        return lost * UPWARD + self.least
