"""The mean of gradients at perturbed weights as control variate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch

from certtrain.errors import ConfigError
from certtrain.gradients.backprop import differentiate
from certtrain.gradients.base import ALONE, LossFunction, State
from certtrain.gradients.control_variate import OWN_PAIRS, ControlVariate, Draw
from certtrain.gradients.members import Antithetic
from certtrain.gradients.ranks import Ranks
from certtrain.networks.graph import Params


@dataclass(frozen=True)
class SmoothedGradient(ControlVariate):
    """h = the mean of gradients at θ ± ε, which is ∇L_σ but for the loss's jumps (RGS, arXiv 2403.07095).

    Attributes:
        samples: Gradients, an even number: they come in antithetic pairs.

    Raises:
        ConfigError: If the number is odd or not positive.
    """

    samples: int = 8

    def __post_init__(self) -> None:
        if self.samples < 2 or self.samples % 2:
            raise ConfigError(f"pgpe.control_samples must be even and at least 2, got {self.samples}")

    def rehearsing(self) -> SmoothedGradient:
        """See `ControlVariate.rehearsing`."""
        return SmoothedGradient(samples=2)

    def gradients(self, state: State) -> int:
        """As many as were asked for."""
        return self.samples

    def parts(self, loss: LossFunction, params: Params, draw: Draw, state: State, ranks: Ranks = ALONE) -> list[Params]:
        """See `ControlVariate.parts`."""
        return halves(loss, params, draw, self.samples, ranks)


def halves(loss: LossFunction, params: Params, draw: Draw, samples: int, ranks: Ranks) -> list[Params]:
    """The mean gradient of each half of the samples; of all of them where their pairs cannot be halved.

    A sample whose gradient is not finite is left out, on all ranks that divide the batch if on one; NaN where none is
    left.
    """
    pairs = samples // 2
    ends = (0, pairs) if pairs % 2 else (0, pairs // 2, pairs)
    return [
        _mean_gradient(loss, params, draw(range(OWN_PAIRS + start, OWN_PAIRS + stop)), ranks)
        for start, stop in pairwise(ends)
    ]


def _mean_gradient(loss: LossFunction, params: Params, blocks: Iterable[Params], ranks: Ranks) -> Params:
    """Over the noise of all pairs and its opposite."""
    total, kept = {name: torch.zeros_like(p) for name, p in params.items()}, 0
    for block in blocks:
        members = Antithetic(params, block)
        for member in range(len(members)):
            _, gradient = differentiate(loss, members.one(member))
            # Zero where it is finite: one number for each sample tells those who have the other images.
            told = torch.stack([(g * 0).sum() for g in gradient.values()]).sum()
            if bool(ranks.reduce(told).isfinite()):
                total, kept = {name: total[name] + g for name, g in gradient.items()}, kept + 1
    return {name: g / kept if kept else g + torch.nan for name, g in total.items()}
