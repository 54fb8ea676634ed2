"""Images and labels as arrays: in a NumPy file, and as whatever holds them in Python."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certtrain.data.source import ArrayPair, Source, Splits
from certtrain.errors import DataError
from certtrain.files import replacing

# Names under which a file has training images, training labels, test images and test labels: ours, which are those of
# MedMNIST, and those of Keras.
NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
CLASSES = "classes"
_DIGITS = 16
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class ArraySource(Source):
    """A NumPy file (.npz) with images and labels of both splits.

    Attributes:
        path: the file. Its arrays are called train_images, train_labels, test_images and test_labels, or x_train,
            y_train, x_test and y_test; what they may look like says `as_pair`. `classes` may name the labels.
    """

    path: str | None = None

    def check(self) -> None:
        """Verifies that the file has the arrays: see `Source.check`. They are not read."""
        with _opened(self.path, self.name) as file:
            _names(file, self.path, self.name)

    def read(self) -> Splits:
        """Reads the arrays: see `Source.load`."""
        return read_arrays(self.path, self.name)


def read_arrays(path: str | None, name: str) -> Splits:
    """Reads a NumPy file of images and labels.

    Args:
        path: see `ArraySource`.
        name: what messages call the data.

    Raises:
        DataError: it is absent or damaged, or its arrays are no images and labels; one line.
    """
    with _opened(path, name) as file:
        names = _names(file, path, name)
        try:
            found = {key: np.asarray(file[key]) for key in names}
            classes = tuple(str(word) for word in file[CLASSES]) if CLASSES in file else ()
        except (
            ValueError,
            OSError,
            zipfile.BadZipFile,
            KeyError,
        ) as error:  # objects in place of numbers, a damaged part
            raise DataError(f"data={name}: '{path}' cannot be read: {' '.join(str(error).split())[:120]}") from error
    pairs = []
    for images, labels in (names[:2], names[2:]):
        try:
            pairs.append(as_pair(found[images], found[labels]))
        except DataError as error:
            raise DataError(f"data={name}: {images} and {labels} of '{path}': {error}") from error
    return Splits(pairs[0], pairs[1], classes)


def _opened(path: str | None, name: str) -> Any:
    if not path:
        raise DataError(f"data={name}: set data.path to a NumPy file with {', '.join(NAMES[0])}")
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"data={name}: there is no file '{path}'; data.path names a NumPy file (.npz)")
    try:
        opened = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"data={name}: '{path}' is no NumPy file (.npz) that can be read") from error
    if not isinstance(opened, np.lib.npyio.NpzFile):
        raise DataError(f"data={name}: '{path}' holds one array; a .npz file with {', '.join(NAMES[0])} is needed")
    return opened


def _names(file: Any, path: str | None, name: str) -> tuple[str, ...]:
    for names in NAMES:
        if all(key in file for key in names):
            return names
    raise DataError(
        f"data={name}: '{path}' has the arrays {', '.join(file) or '(none)'}; needed are {', '.join(NAMES[0])} "
        f"(or {', '.join(NAMES[1])})"
    )


def as_pair(images: Any, labels: Any) -> ArrayPair:
    """Images and labels in the form that all data sets have here.

    Args:
        images: [images, height, width] (grey), [images, channels, height, width] or [images, height, width, channels]
            with 1 or 3 channels where they come last; uint8 from 0 to 255, booleans, or floating-point numbers from 0
            to 1.
        labels: [images] or [images, 1], whole numbers from 0 on.

    Raises:
        DataError: they are something else; one line that says what would be right.
    """
    pixels, numbers = _array(images, "images"), _array(labels, "labels")
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4:
        raise DataError(
            f"images have shape {list(pixels.shape)}; [images, height, width] or [images, channels, height, width] is "
            "needed (features that are no images: [images, 1, 1, features])"
        )
    if pixels.shape[1] not in _CHANNELS and pixels.shape[3] in _CHANNELS:
        pixels = pixels.transpose(0, 3, 1, 2)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.shape != (len(pixels),):
        raise DataError(
            f"there are {len(pixels)} images, but labels of shape {list(numbers.shape)}; one for each is needed"
        )
    if not len(pixels):
        raise DataError("there are no images")
    return ArrayPair(torch.from_numpy(_pixels(pixels)), torch.from_numpy(_labels(numbers)))


def _array(values: Any, what: str) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{what} are no array: {' '.join(str(error).split())[:120]}") from error


def _pixels(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.float32)
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise DataError(f"images hold {pixels.dtype}; uint8 from 0 to 255, or floats from 0 to 1, are needed")
    if not np.isfinite(pixels).all():
        raise DataError(f"image {int(np.argwhere(~np.isfinite(pixels))[0][0])} has a pixel that is NaN or infinite")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise DataError(
            f"pixels run from {low:g} to {high:g}; floats must be from 0 to 1 (normalization is part of the network; "
            "pixels from 0 to 255 are uint8)"
        )
    return np.ascontiguousarray(pixels, dtype=np.float32)


def _labels(numbers: np.ndarray) -> np.ndarray:
    whole = np.issubdtype(numbers.dtype, np.integer)
    if not whole:
        raise DataError(f"labels hold {numbers.dtype}; whole numbers from 0 on are needed")
    if numbers.min() < 0:
        raise DataError(f"image {int(numbers.argmin())} has label {int(numbers.min())}; labels are from 0 on")
    return np.ascontiguousarray(numbers, dtype=np.int64)


def store_arrays(splits: Splits, folder: Path) -> Path:
    """Keeps a data set in a file that is named by its content: the same data are stored once.

    Args:
        splits: the data set.
        folder: is made if it is not there.

    Returns:
        The file, absolute; `ArraySource` reads it.
    """
    arrays: dict[str, np.ndarray] = dict(
        zip(
            NAMES[0],
            (array.numpy() for pair in (splits.train, splits.test) for array in (pair.inputs, pair.labels)),
            strict=True,
        )
    )
    if splits.classes:
        arrays[CLASSES] = np.array(splits.classes)
    digest = sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    path = folder.absolute() / f"{digest.hexdigest()[:_DIGITS]}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    return path


@dataclass(frozen=True)
class Facts:
    """What a `Source` declares of its data.

    Attributes:
        shape: [channels, height, width].
        num_classes: one more than the largest label, or as many as there are names.
        mean: of each channel over the training images, pixels in [0, 1], to four digits.
        std: likewise; 1 where all pixels are the same.
    """

    shape: tuple[int, ...]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure(splits: Splits) -> Facts:
    """The facts of a data set in memory."""
    train, test = splits.train, splits.test
    largest = max(int(pair.labels.max()) for pair in (train, test))
    mean, std = channel_statistics(train.inputs)
    return Facts(tuple(train.inputs.shape[1:]), max(largest + 1, len(splits.classes), 2), mean, std)


def channel_statistics(inputs: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of [images, channels, height, width], pixels scaled to [0, 1]."""
    scale = 255.0 if inputs.dtype == torch.uint8 else 1.0
    means, stds = [], []
    for channel in inputs.unbind(1):  # one at a time: float64 takes eight times the room of uint8
        values = channel.double() / scale
        means.append(round(float(values.mean()), 4))
        stds.append(round(float(values.std(correction=0)), 4) or 1.0)
    return tuple(means), tuple(stds)
