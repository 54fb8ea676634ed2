"""What convolutions and poolings have in common: strides, dilations, and borders in ONNX's several ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from certtrain.networks.onnx.node import Node
from certtrain.networks.onnx.values import Value, has_batch

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """Positions of windows, one number for each dimension of the image or signal.

    Attributes:
        kernel: Pixels of a window.
        stride: From one window to the next.
        dilation: From one pixel of a window to the next.
        before: Border in front of the first pixel.
        after: Border behind the last one.
    """

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    before: Sizes
    after: Sizes

    @property
    def symmetric(self) -> bool:
        """Whether the border is the same at both sides."""
        return self.before == self.after

    @property
    def border(self) -> list[int]:
        """As torch's padding layers take it: last dimension first."""
        pairs = list(zip(self.before, self.after, strict=True))
        return [n for pair in reversed(pairs) for n in pair]


def images(node: Node) -> tuple[Value, Sizes]:
    """The first input, [1, channels, length] or [1, channels, height, width], and its size without channels."""
    x = node.value()
    if not has_batch(x.shape) or len(x.shape) not in (3, 4):
        node.refuse(f"its input must be [1, channels, length] or [1, channels, height, width], got {list(x.shape)}")
    return x, x.shape[2:]


def windows(node: Node, size: Sizes, kernel: Sequence[int]) -> Windows:
    """Reads kernel_shape, strides, dilations, pads and auto_pad.

    Args:
        node: The node.
        size: Of the image.
        kernel: What kernel_shape is where it is left out.
    """
    ones = [1] * len(size)
    kernel = tuple(int(n) for n in node.attribute("kernel_shape", list(kernel)))
    stride = tuple(int(n) for n in node.attribute("strides", ones))
    dilation = tuple(int(n) for n in node.attribute("dilations", ones))
    pads = [int(n) for n in node.attribute("pads", [0] * (2 * len(size)))]
    automatic = node.attribute("auto_pad", "NOTSET")
    if {len(kernel), len(stride), len(dilation), len(pads) / 2} != {len(size)}:
        node.fault(f"its windows have other dimensions than its input of size {list(size)}")
    if min(*kernel, *stride, *dilation) < 1 or min(pads) < 0:
        node.fault("kernels, strides and dilations must be positive, borders not negative")
    before, after = tuple(pads[: len(size)]), tuple(pads[len(size) :])
    if automatic.startswith("SAME"):
        before, after = _same(size, kernel, stride, dilation, odd_in_front=automatic == "SAME_LOWER")
    elif automatic == "VALID":
        before = after = (0,) * len(size)
    elif automatic != "NOTSET":
        node.refuse(f"auto_pad={automatic} is not supported")
    return Windows(kernel, stride, dilation, before, after)


def _same(size: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, odd_in_front: bool) -> tuple[Sizes, Sizes]:
    """Borders that give ceil(size / stride) windows."""
    total = [
        max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    ]
    less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (more, less) if odd_in_front else (less, more)
