"""Images as they are stored, with where they are from, and their way into tensors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch

from certtrain.data.images import decode_image
from certtrain.data.source import ArrayPair
from certtrain.errors import DataError

# Decoding that takes longer shows its progress.
_PATIENCE_S = 3


class EncodedImage(NamedTuple):
    """One image file and its class.

    Attributes:
        content: what is in the file, or where it is; None if there is none.
        label: the number of the class, as it was found.
        place: what messages call it: a file, or a row of one.
    """

    content: bytes | Path | None
    label: int
    place: str


@dataclass(frozen=True)
class EncodedSplit:
    """A split that has been found and not been decoded.

    Attributes:
        name: what messages call it.
        size: the number of its images.
        images: begins to read them.
    """

    name: str
    size: int
    images: Callable[[], Iterator[EncodedImage]]


def decode_split(
    split: EncodedSplit, shape: Sequence[int], num_classes: int, title: str, limit: int | None = None
) -> ArrayPair:
    """Decodes a split.

    Args:
        split: what to decode.
        shape: [channels, height, width] of every image.
        num_classes: labels must be from 0 to num_classes - 1.
        title: what a progress bar is called.
        limit: decode the first images only, so many.

    Raises:
        DataError: an image or a label is not as expected; the message names its file or row.
    """
    from tqdm.auto import tqdm

    size = split.size if limit is None else min(limit, split.size)
    if size == 0:
        raise DataError(f"split '{split.name}' is empty")
    inputs = torch.empty((size, *shape), dtype=torch.uint8)
    labels = torch.empty(size, dtype=torch.int64)
    pixels = inputs.numpy()
    # disable=None: no progress where nobody looks at a terminal.
    progress = tqdm(total=size, desc=title, unit=" images", delay=_PATIENCE_S, leave=False, disable=None)
    with progress:
        for number, image in enumerate(islice(split.images(), size)):
            if not 0 <= image.label < num_classes:
                raise DataError(
                    f"{image.place} has label {image.label}, but {num_classes} classes are declared "
                    f"(labels 0 to {num_classes - 1})"
                )
            try:
                pixels[number] = decode_image(image.content, shape)
            except DataError as error:
                raise DataError(f"{image.place} {error}") from error
            labels[number] = image.label
            progress.update()
    return ArrayPair(inputs, labels)
