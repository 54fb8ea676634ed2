"""`python -m benchmarks.explain FILE.png`: what a row of back-substitution reads, layer by layer, drawn for docs."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from certtrain.report.style import BLUE, GREY, ORANGE, drawing, save

# cnn5 on MNIST, from the third convolution back to the input: name, pixels a side, channels, and the window by which
# its pixels read the layer to its right (kernel, stride, padding).
LAYERS = (
    ("conv3: one neuron", 7, 32, (4, 2, 1)),
    ("conv2", 14, 16, (4, 2, 1)),
    ("conv1", 28, 16, (3, 1, 1)),
    ("input", 28, 1, None),
)
START = (3, 3)
AFTER = "ReLU lines,\ntransposed\nconvolution"
STEPS = ("transposed\nconvolution", AFTER, AFTER)


def rectangles() -> list[tuple[int, int]]:
    """(first pixel, pixels) that the neuron reads in each layer, the same in both dimensions."""
    first, count = START[0], 1
    found = [(first, count)]
    for (_, _, _, window), (_, size, _, _) in pairwise(LAYERS):
        assert window is not None
        kernel, stride, padding = window
        low, high = first * stride - padding, (first + count - 1) * stride - padding + kernel
        first, count = max(low, 0), min(high, size) - max(low, 0)
        found.append((first, count))
    return found


def draw(path: Path) -> Path:
    """Writes the picture."""
    with drawing():
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        canvas = Figure(figsize=(11, 3.6), layout="constrained")
        axes = canvas.subplots(1, len(LAYERS))
        for ax, (name, size, channels, _), (first, count) in zip(axes, LAYERS, rectangles(), strict=True):
            ax.add_patch(Rectangle((0, 0), size, size, facecolor="white", edgecolor=GREY))
            ax.add_patch(Rectangle((first, first), count, count, facecolor=BLUE, alpha=0.8))
            _grid(ax, size)
            ax.set(xlim=(-0.5, size + 0.5), ylim=(size + 0.5, -0.5), aspect="equal", xticks=[], yticks=[])
            ax.set_title(f"{name}\n{size}x{size}x{channels}", fontsize=9)
            # The row begins as the neuron itself.
            read = 1 if ax is axes[0] else count * count * channels
            share = f"{read:,} of {size * size * channels:,} coefficients"
            ax.set_xlabel(share, fontsize=8)
            ax.set_frame_on(False)
        for left, right, text in zip(axes, axes[1:], STEPS, strict=False):
            arrow = {"arrowstyle": "->", "color": ORANGE, "lw": 1.5}
            ends = {
                "xy": (-0.02, 0.5),
                "xytext": (1.02, 0.5),
                "xycoords": right.transAxes,
                "textcoords": left.transAxes,
            }
            left.annotate("", arrowprops=arrow, **ends)
            left.text(1.2, 0.56, text, transform=left.transAxes, ha="center", va="bottom", fontsize=7, color=ORANGE)
        return save(canvas, path)


def _grid(ax: Any, size: int) -> None:
    for line in range(size + 1):
        ax.plot([0, size], [line, line], color=GREY, lw=0.2)
        ax.plot([line, line], [0, size], color=GREY, lw=0.2)


if __name__ == "__main__":
    print(draw(Path(sys.argv[1])))
