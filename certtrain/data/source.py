"""What a data set is to the rest of certtrain: facts known in advance, and two splits once loaded."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from certtrain.errors import ConfigError, DataError


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
    """A data set in memory.

    Attributes:
        train: for training and validation.
        test: only for the final certification.
        classes: the names of the labels, in their order; empty if they have none.
        notes: what people should know of how the data were found, one line each.
    """

    train: ArrayPair
    test: ArrayPair
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def duplicates(self) -> int:
        """How many test images are, bit by bit, also training images, whatever their labels."""
        known = {image.tobytes() for image in self.train.inputs.numpy()}
        return sum(image.tobytes() in known for image in self.test.inputs.numpy())


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
            value = getattr(self, field)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ConfigError(f"data={self.name}: {field} must be a list, not {value!r}")
            object.__setattr__(self, field, tuple(value))
        if len(self.shape) != 3 or not all(_is_whole(size) and size >= 1 for size in self.shape):
            raise ConfigError(f"data={self.name}: shape must be [channels, height, width], not {list(self.shape)}")
        if not (_is_whole(self.num_classes) and self.num_classes >= 2):
            raise ConfigError(f"data={self.name}: num_classes must be a whole number from 2 on, not {self.num_classes}")
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ConfigError(f"data={self.name}: mean and std must have one value per channel ({self.shape[0]})")
        if not all(_is_number(value) for value in (*self.mean, *self.std)):
            raise ConfigError(f"data={self.name}: mean and std must be numbers, not {[*self.mean, *self.std]}")
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
        if images.dtype != torch.uint8 and not (
            images.dtype == torch.float32 and ((images >= 0) & (images <= 1)).all()
        ):
            raise DataError(f"data={self.name}: {split} images must be uint8, or float32 from 0 to 1")
        if labels.dtype != torch.int64:
            raise DataError(f"data={self.name}: {split} labels must be int64, not {labels.dtype}")
        wrong = ((labels < 0) | (labels >= self.num_classes)).nonzero().flatten()
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"data={self.name}: {split} image {row} has label {int(labels[row])}, "
                f"but {self.num_classes} classes are declared (labels 0 to {self.num_classes - 1})"
            )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
