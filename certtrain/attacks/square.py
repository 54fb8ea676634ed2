"""Square Attack (Andriushchenko et al., ECCV 2020): random search that needs no gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from certtrain.attacks.base import Margins
from certtrain.attacks.pgd import Key, is_lower
from certtrain.bounds.base import Box
from certtrain.errors import ConfigError

# Share of the image that is moved at first, and after which share of the queries it is halved.
FIRST_SHARE = 0.8
HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Square:
    """Moves random squares of the image to an end of the box, and keeps what lowers the smallest margin.

    It finds what gradients hide: flat regions and masked ones. Everything random depends on an image's key and the
    number of the restart only, never on the batch.

    Attributes:
        queries: Points that are tried for each image, per restart.
        restarts: Random starts.

    Raises:
        ConfigError: If a number is out of range.
    """

    queries: int = 500
    restarts: int = 1

    def __post_init__(self) -> None:
        if not all(type(number) is int and number >= 0 for number in (self.queries, self.restarts)):
            raise ConfigError(f"attack: queries and restarts must be whole numbers >= 0, got {self}")

    @property
    def rounds(self) -> int:
        """How often `restart` can be called."""
        return self.restarts if self.queries else 0

    def restart(
        self,
        margins: Margins,
        box: Box,
        keys: Sequence[Key],
        images: Int[Tensor, " some"],
        at_center: Float[Tensor, "batch rows"],
        number: int,
    ) -> tuple[Float[Tensor, "some *shape"], Float[Tensor, " some"]]:
        """One restart on some images of a batch; see `PGD.restart`."""
        own = box[images]
        draws = _Draws.of(own, [(*keys[i], number) for i in images.tolist()], self.queries)
        with torch.no_grad():
            x = draws.stripes(own)
            lowest, left = margins(x, images).amin(1), torch.arange(len(images), device=images.device)
            for query in range(self.queries):
                left = left[~(lowest[left] < 0)]
                if not len(left):
                    break
                moved = draws.move(own[left], x[left], left, query)
                found = margins(moved, images[left]).amin(1)
                lower = is_lower(found, lowest[left])
                x[left[lower]], lowest[left[lower]] = moved[lower], found[lower]
        return x, lowest


@dataclass(frozen=True)
class _Draws:
    """All random numbers of a restart.

    Attributes:
        shape: Of an image, as channels, height and width.
        first: To which end each column is moved at the start: [some, channels, 1, width].
        places: Where squares lie, as shares of the room that they have: [some, queries, 2].
        ends: To which end they are moved: [some, queries, channels].
    """

    shape: tuple[int, int, int]
    first: Tensor
    places: Tensor
    ends: Tensor

    @staticmethod
    def of(box: Box, keys: Sequence[Key], queries: int) -> _Draws:
        own = tuple(box.lower.shape[1:])
        # What is no image is a single row of one channel: squares are then stretches of it.
        channels, height, width = own if len(own) == 3 else (1, 1, math.prod(own))
        made = []
        for key in keys:
            random = np.random.default_rng(key)
            stripes = random.random((channels, 1, width)) < 0.5
            made.append((stripes, random.random((queries, 2), np.float32), random.random((queries, channels)) < 0.5))
        first, places, ends = (
            torch.from_numpy(np.stack(part)).to(box.lower.device) for part in zip(*made, strict=True)
        )
        return _Draws((channels, height, width), first, places, ends)

    def stripes(self, box: Box) -> Tensor:
        return self._at_ends(box, self.first.expand(-1, *self.shape)).reshape(box.lower.shape)

    def move(self, box: Box, x: Tensor, images: Tensor, query: int) -> Tensor:
        """Points with one square at an end of the box."""
        _, height, width = self.shape
        share = FIRST_SHARE / 2 ** sum(query >= halving * self.places.shape[1] for halving in HALVINGS)
        high = min(height, max(1, round(math.sqrt(share * height * width)) if height > 1 else 1))
        wide = min(width, max(1, round(share * height * width / high)))
        place = self.places[images, query]
        top = (place[:, 0] * (height - high + 1)).long().clamp(max=height - high).view(-1, 1, 1, 1)
        left = (place[:, 1] * (width - wide + 1)).long().clamp(max=width - wide).view(-1, 1, 1, 1)
        row = torch.arange(height, device=x.device).view(1, 1, -1, 1)
        column = torch.arange(width, device=x.device).view(1, 1, 1, -1)
        square = (row >= top) & (row < top + high) & (column >= left) & (column < left + wide)
        ends = self.ends[images, query].view(len(images), -1, 1, 1).expand(-1, *self.shape)
        return torch.where(square, self._at_ends(box, ends), x.view(len(x), *self.shape)).view(x.shape)

    def _at_ends(self, box: Box, ends: Tensor) -> Tensor:
        lower, upper = (end.view(len(end), *self.shape) for end in (box.lower, box.upper))
        return torch.where(ends, upper, lower)
