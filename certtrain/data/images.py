"""One encoded image to pixels, unless something would be lost."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from certtrain.errors import DataError

# Modes whose values are 8 bits per channel, so that a conversion to RGB loses nothing but an alpha channel.
_EIGHT_BITS = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")


def decode_image(content: bytes | Path | None, shape: Sequence[int]) -> UInt8[np.ndarray, "channels height width"]:
    """Decodes one image file.

    Args:
        content: what is in the file, or where it is; None if there is none.
        shape: the expected [channels, height, width], with 1 channel (grey) or 3 (RGB).

    Returns:
        The pixels, from 0 to 255.

    Raises:
        DataError: the file is no image, or an image of another size or kind.
    """
    from PIL import Image  # here, because only data sets of image files need it

    if content is None:
        raise DataError("holds no image")
    channels, height, width = shape
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            if image.size != (width, height):
                raise DataError(
                    f"is {image.height}x{image.width} pixels large, but the declared shape is {list(shape)}"
                )
            _check_kind(image)
            if channels == 1 and image.mode == "L" and "transparency" not in image.info:
                return np.asarray(image)[None]
            pixels = np.asarray(_opaque(image)).transpose(2, 0, 1)
    except DataError:
        raise
    # Pillow's readers of damaged files raise OSError, ValueError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise DataError(f"cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})") from error
    if channels == 3:
        return pixels
    if (pixels != pixels[:1]).any():
        raise DataError(f"is a colour image, but the declared shape is {list(shape)}")
    return pixels[:1]


def _check_kind(image: Any) -> None:
    """Refuses more than 8 bits per channel, which Pillow cuts off without a word where it can, and several frames."""
    stored = {str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in image.tile}
    mode = next((raw for raw in stored if ";16" in raw), image.mode)
    if mode not in _EIGHT_BITS:
        raise DataError(f"has mode {mode}; images of 8 bits per channel, grey or RGB, are needed")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"has {image.n_frames} frames; one is needed")


def _opaque(image: Any) -> Any:
    """The image as RGB; an alpha channel must say that nothing is transparent."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            raise DataError("has transparent pixels; grey or RGB is needed")
    return image if image.mode == "RGB" else image.convert("RGB")
