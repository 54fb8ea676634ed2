"""One plain gradient of the same batch as control variate."""

from __future__ import annotations

from dataclasses import dataclass

from certtrain.gradients.backprop import differentiate
from certtrain.gradients.base import ALONE, LossFunction, State
from certtrain.gradients.control_variate import ControlVariate, Draw
from certtrain.gradients.ranks import Ranks
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class PlainGradient(ControlVariate):
    """h = ∇L(θ): one backward pass. Good in early training, and where the loss is smooth on the scale of the noise."""

    def gradients(self, state: State) -> int:
        """One."""
        return 1

    def parts(self, loss: LossFunction, params: Params, draw: Draw, state: State, ranks: Ranks = ALONE) -> list[Params]:
        """See `ControlVariate.parts`."""
        return [differentiate(loss, params)[1]]
