"""What a data set is to the rest of certtrain: facts known in advance, and two splits once loaded."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from certtrain.errors import ConfigError, DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArrayPair:
    """Images and their classes.

    Attributes:
        inputs: [images, channels, height, width]; uint8 from 0 to 255, or float32 from 0 to 1.
        labels: [images], int64.
    """

    inputs: UInt8[Tensor, "images channels height width"] | Float[Tensor, "images channels height width"]
    labels: Int[Tensor, " images"]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """A data set in memory: `train` for training and validation, `test` only for the final certification."""

    train: ArrayPair
    test: ArrayPair


@dataclass(frozen=True)
class Source(ABC):
    """A data set that can be described before it is read; sequences are kept as tuples.

    Attributes:
        name: what messages call it.
        shape: [channels, height, width] of one image.
        num_classes: labels run from 0 to num_classes - 1.
        mean: of each channel over the training images, pixels in [0, 1].
        std: of each channel over the training images, pixels in [0, 1].
    """

    name: str
    shape: Sequence[int]
    num_classes: int
    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        # Configurations hand over lists; tuples make sources comparable, and plain enough for a checkpoint.
        for field in ("shape", "mean", "std"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ConfigError(f"data={self.name}: shape must be [channels, height, width], not {list(self.shape)}")
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ConfigError(f"data={self.name}: mean and std must have one value per channel ({self.shape[0]})")
        if min(self.std) <= 0:
            raise ConfigError(f"data={self.name}: std must be positive, not {list(self.std)}")

    @abstractmethod
    def check(self) -> None:
        """Verifies cheaply that the data can be found and look as declared.

        Raises:
            DataError: they cannot, or do not; one line that says what to set.
        """

    @abstractmethod
    def read(self) -> Splits:
        """Reads everything; `load` is this and a comparison with what was declared."""

    def load(self) -> Splits:
        """Reads the data into memory and verifies them.

        Returns:
            The training and the test images.

        Raises:
            DataError: the data cannot be read, or their shape, classes or number are not as declared.
        """
        splits = self.read()
        self._verify("training", splits.train)
        self._verify("test", splits.test)
        present = int(splits.train.labels.bincount().count_nonzero())
        if present < self.num_classes:
            _log.warning("data=%s: only %d of %d classes occur in training", self.name, present, self.num_classes)
        return splits

    def _verify(self, split: str, pair: ArrayPair) -> None:
        images, labels = pair.inputs, pair.labels
        if len(images) != len(labels):
            raise DataError(f"data={self.name}: the {split} split has {len(images)} images but {len(labels)} labels")
        if len(images) == 0:
            raise DataError(f"data={self.name}: the {split} split is empty")
        if tuple(images.shape[1:]) != self.shape:
            raise DataError(
                f"data={self.name}: {split} images have shape {list(images.shape[1:])}, "
                f"but {list(self.shape)} is declared"
            )
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= self.num_classes:
            raise DataError(
                f"data={self.name}: {split} labels run from {lowest} to {highest}, "
                f"but {self.num_classes} classes are declared (labels 0 to {self.num_classes - 1})"
            )
