"""Projected gradient descent that raises the cross-entropy: all wrong classes pull, not the nearest one alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from certtrain.attacks.pgd import PGD


@dataclass(frozen=True)
class CrossEntropyPGD(PGD):
    """PGD on the loss that networks are trained with; see `PGD` for its options.

    Where margins to several classes are about as small, lowering the smallest turns from one to another; their
    cross-entropy, `log(1 + sum exp(-margin))`, has one direction.
    """

    def _lowered(self, found: Tensor, target: Tensor | None) -> Tensor:
        return -torch.cat([torch.zeros_like(found[:, :1]), -found], 1).logsumexp(1)
