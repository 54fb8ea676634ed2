"""Random crops and flips of a whole batch at once."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn.functional import pad

from certtrain.errors import ConfigError

_AUGMENT_STREAM = 2


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied.

    Attributes:
        crop: pixels of black padding on every side, out of which a window of the old size is cut; 0 for none.
        flip: mirror each image left to right with probability 1/2.
    """

    crop: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ConfigError(f"data.augment.crop must be 0 or more pixels, not {self.crop}")

    def __call__(
        self, images: Shaped[Tensor, "batch channels height width"], seed: int, epoch: int, number: int
    ) -> Shaped[Tensor, "batch channels height width"]:
        """Returns the varied images, a pure function of the images and (seed, epoch, number of the batch).

        Args:
            images: [batch, channels, height, width], any dtype, which is kept; not changed.
            seed: a non-negative integer.
            epoch: the epoch the batch belongs to.
            number: the position of the batch in its epoch.
        """
        if self.crop == 0 and not self.flip:
            return images
        batch, channels, height, width = images.shape
        random = np.random.default_rng([_AUGMENT_STREAM, seed, epoch, number])
        # Both are always drawn, so that switching one off leaves the other as it was.
        offsets = torch.from_numpy(random.integers(0, 2 * self.crop + 1, size=(2, batch, 1)))
        mirrored = torch.from_numpy(random.integers(0, 2, size=(batch, 1)) == 1)
        rows = offsets[0] + torch.arange(height)
        columns = offsets[1] + torch.arange(width)
        if self.flip:
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = pad(images, (self.crop,) * 4)
        # One gather over flat pixels: six times faster than indexing with a row and a column index.
        pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        pixels = pixels.reshape(batch, 1, height * width).expand(-1, channels, -1)
        return padded.flatten(2).gather(2, pixels).reshape(images.shape)
