"""Encoded images, as Hugging Face `datasets` stores them, to uint8 tensors."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from certtrain.errors import DataError

# Modes whose values are 8 bits per channel, so that a conversion to grey or RGB loses nothing.
_LOSSLESS_MODES = ("1", "L", "P", "RGB")


def decode_image(record: Mapping[str, Any], shape: Sequence[int]) -> UInt8[np.ndarray, "channels height width"]:
    """Decodes one image file.

    Args:
        record: the content of the file under "bytes" or, where that is None, its location under "path".
        shape: the expected [channels, height, width], with 1 channel (grey) or 3 (RGB).

    Returns:
        The pixels, from 0 to 255.

    Raises:
        DataError: the file is no image, or an image of another size or kind.
    """
    from PIL import Image  # here, because only data sets of image files need it

    content = record["bytes"]
    channels, height, width = shape
    try:
        with Image.open(record["path"] if content is None else io.BytesIO(content)) as image:
            if image.size != (width, height):
                raise DataError(
                    f"is {image.height}x{image.width} pixels large, but the declared shape is {list(shape)}"
                )
            if image.mode not in _LOSSLESS_MODES:
                raise DataError(f"has mode {image.mode}; images of 8 bits per channel, grey or RGB, are needed")
            if channels == 1 and image.mode == "L":
                return np.asarray(image)[None]
            pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB")).transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all of them on damaged files
        raise DataError(f"cannot be decoded ({error})") from error
    if channels == 3:
        return pixels
    if (pixels != pixels[:1]).any():
        raise DataError(f"is a colour image, but the declared shape is {list(shape)}")
    return pixels[:1]


def decode_images(
    records: Iterable[Mapping[str, Any]], shape: Sequence[int], first: int = 0
) -> UInt8[Tensor, "images channels height width"]:
    """Decodes image files: see `decode_image`.

    Args:
        records: the files.
        shape: the expected [channels, height, width].
        first: the number of the first image in error messages.

    Returns:
        The pixels of all images, [images, channels, height, width].

    Raises:
        DataError: a file is not what was expected; the message names its number.
    """
    pixels = []
    for number, record in enumerate(records, start=first):
        try:
            pixels.append(decode_image(record, shape))
        except DataError as error:
            raise DataError(f"image {number} {error}") from error
    return torch.from_numpy(np.stack(pixels)) if pixels else torch.empty((0, *shape), dtype=torch.uint8)
