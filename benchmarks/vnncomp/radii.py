"""How far from an image its questions reach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from certtrain.attacks import PGD
from certtrain.bounds import Box, margin_spec


class Radii(ABC):
    """Chooses the balls that are asked about."""

    @abstractmethod
    def of(self, model: nn.Module, images: Tensor, labels: Tensor) -> Sequence[tuple[float, int]]:
        """Radii in pixel units, each with the number of an image.

        Args:
            model: In eval mode.
            images: [images, channels, height, width] in [0, 1], classified correctly.
            labels: Their classes.
        """


@dataclass(frozen=True)
class Everywhere(Radii):
    """The same for all images: all of them at the first, then at the next."""

    values: tuple[float, ...]

    def of(self, model: nn.Module, images: Tensor, labels: Tensor) -> Sequence[tuple[float, int]]:
        """See `Radii`."""
        return [(eps, i) for eps in self.values for i in range(len(labels))]


@dataclass(frozen=True)
class BelowAttack(Radii):
    """For each image a share of the smallest radius at which an attack changes its class: neither answer is easy.

    Attributes:
        share: Of that radius.
        most: Where bisection begins; an image that is not changed there has this one.
        halvings: Of the interval between a radius that changes the class and one that does not.
        attack: What is tried.
    """

    share: float
    most: float
    halvings: int = 8
    attack: PGD = PGD(steps=40, restarts=3)  # noqa: RUF009  (frozen)

    def of(self, model: nn.Module, images: Tensor, labels: Tensor) -> Sequence[tuple[float, int]]:
        """See `Radii`."""
        spec = margin_spec(labels, model(images[:1]).shape[1])
        low, high = torch.zeros(len(labels)), torch.full((len(labels),), self.most)
        for _ in range(self.halvings):
            middle = (low + high) / 2
            radius = middle.reshape(-1, *[1] * (images.ndim - 1)).expand_as(images)
            box = Box((images - radius).clamp(0, 1), (images + radius).clamp(0, 1))
            _, margin = self.attack.worst(
                lambda x, rows: (spec[rows] @ model(x)[..., None]).squeeze(-1), box, [(i,) for i in range(len(labels))]
            )
            changed = margin <= 0
            low, high = torch.where(changed, low, middle), torch.where(changed, middle, high)
        return [(self.share * float(eps), i) for i, eps in enumerate(high)]
