"""What an image file may be: nothing is lost on the way to pixels, or it is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from certtrain.data.images import decode_image
from certtrain.errors import DataError

GREY, COLOUR = (1, 4, 5), (3, 4, 5)


def pixels(channels):
    return np.random.default_rng(channels).integers(0, 256, size=(channels, 4, 5), dtype=np.uint8)


def image(channels):
    array = pixels(channels)
    return Image.fromarray(array[0] if channels == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def encoded(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def sixteen_bit_colour_png():
    """What Pillow reads as RGB and cannot write: 16 bits per channel."""
    import struct
    import zlib

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + bytes(range(30)) for _ in range(4))
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats_without_loss_give_the_same_pixels(kind, channels):
    found = decode_image(encoded(image(channels), kind), (channels, 4, 5))
    assert np.array_equal(found, pixels(channels))


@pytest.mark.parametrize("alpha", ["LA", "RGBA"])
def test_an_alpha_channel_that_says_nothing_is_left_out(alpha):
    channels = len(alpha) - 1
    assert np.array_equal(decode_image(encoded(image(channels).convert(alpha)), (channels, 4, 5)), pixels(channels))


def test_grey_images_serve_where_colour_is_declared():
    assert np.array_equal(decode_image(encoded(image(1)), COLOUR), pixels(1).repeat(3, axis=0))


def transparent(mode):
    picture = image(len(mode) - 1).convert(mode)
    picture.putpixel((0, 0), (*picture.getpixel((0, 0))[:-1], 254))
    return encoded(picture)


@pytest.mark.parametrize(
    ("content", "shape", "words"),
    [
        (transparent("RGBA"), COLOUR, "has transparent pixels"),
        (transparent("LA"), GREY, "has transparent pixels"),
        (encoded(Image.new("P", (5, 4)), transparency=0), COLOUR, "has transparent pixels"),
        (encoded(Image.new("L", (5, 4), 7), transparency=7), GREY, "has transparent pixels"),
        (encoded(Image.fromarray(np.full((4, 5), 40_000, dtype=np.uint16))), GREY, "has mode I;16"),
        (sixteen_bit_colour_png(), COLOUR, "has mode RGB;16B"),
        (encoded(Image.new("CMYK", (5, 4)), "TIFF"), COLOUR, "has mode CMYK"),
        (encoded(Image.new("F", (5, 4)), "TIFF"), GREY, "has mode F"),
        (
            encoded(image(1), "GIF", save_all=True, append_images=[Image.new("L", (5, 4))]),
            GREY,
            "has 2 frames; one is needed",
        ),
        (encoded(image(3)), GREY, "is a colour image"),
        (encoded(image(1)), (1, 5, 4), "is 4x5 pixels large, but the declared shape is"),
        (encoded(image(1))[:40], GREY, "cannot be decoded"),
        (b"", GREY, "cannot be decoded"),
        (b"no image", GREY, "cannot be decoded"),
        (None, GREY, "holds no image"),
    ],
)
def test_what_would_lose_something_is_refused(content, shape, words):
    with pytest.raises(DataError, match=words) as error:
        decode_image(content, shape)
    assert "\n" not in str(error.value)
