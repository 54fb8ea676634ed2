"""What a data set of one's own is, found in it: shape, classes and channel statistics, where nobody declares them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

from certtrain.data.arrays import Facts, channel_statistics, measure, read_arrays
from certtrain.data.encoded import EncodedImage
from certtrain.data.huggingface import HuggingFaceSource
from certtrain.errors import DataError

# Stand-ins while nothing is known: of any image and any label.
_ANY_SHAPE, _ANY_CLASSES = (1, 1, 1), 2


@dataclass(frozen=True)
class _Undeclared(HuggingFaceSource):
    """A folder or a data set of the hub, with whatever classes it has."""

    @property
    def _expected_classes(self) -> int | None:
        return None


@lru_cache(maxsize=4)
def measure_arrays(path: str | None, name: str) -> Facts:
    """The facts of a NumPy file: see `certtrain.data.arrays.read_arrays`.

    Raises:
        DataError: it cannot be read; one line.
    """
    return measure(read_arrays(path, name))


@lru_cache(maxsize=4)
def measure_images(
    name: str,
    hub: str,
    path: str | None,
    columns: tuple[str, str],
    splits: tuple[str, str],
    shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
) -> Facts:
    """The facts of a folder of images or Parquet files, or of a data set of the hub, all of which is read once for it.

    Args:
        name: what messages call it.
        hub: its id on the hub, if `path` is None.
        path: the folder.
        columns: of images and labels, in Parquet files and on the hub.
        splits: names of the training and the test split.
        shape: if it is declared; otherwise that of the first training image, with 1 channel if it is grey and 3 if not.
        num_classes: if they are declared; otherwise the class folders, named classes, or the largest label and one.

    Raises:
        DataError: it cannot be read; one line.
    """
    dummy = (0.0,), (1.0,)
    source = _Undeclared(name, _ANY_SHAPE, _ANY_CLASSES, *dummy, hub, *columns, *splits, path)
    found = source._open()
    with source._explained():
        if shape is None:
            shape = _shape_of(next(found.train.images(), None))
        if num_classes is None:
            labels = (image.label for image in chain(found.train.images(), found.test.images()))
            num_classes = max(2, len(found.classes) or 1 + max(labels))
    ones = (0.0,) * shape[0], (1.0,) * shape[0]
    declared = HuggingFaceSource(name, shape, num_classes, *ones, hub, *columns, *splits, path)
    train = declared._decode(declared._open().train)
    return Facts(shape, num_classes, *channel_statistics(train.inputs))


def _shape_of(image: EncodedImage | None) -> tuple[int, int, int]:
    from PIL import Image

    if image is None:
        raise DataError("has no training image")
    content = image.content
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else Path(str(content))) as opened:
            return 1 if opened.mode in ("1", "L", "LA") else 3, opened.height, opened.width
    except Exception as error:  # Pillow's readers raise whatever they meet
        raise DataError(f"{image.place} cannot be decoded ({' '.join(str(error).split())[:80]})") from error
