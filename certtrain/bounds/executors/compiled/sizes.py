"""How large the rows of a program are, and how much work: what the compiled code is told to allocate."""

from __future__ import annotations

from math import prod

from certtrain.bounds.executors.compiled.steps import CONVOLUTIONS, Kind, Layer, Step, whole
from certtrain.bounds.rows.reach import Reach


def halos(steps: list[Step]) -> list[int]:
    """Zeros beside every line before each step and after the last: as far as the next convolution reaches."""
    halos = [0]
    for step in reversed(steps):
        convolves = step.kind in CONVOLUTIONS
        kernel, stride = step.window[1], step.window[3]
        halos.insert(0, (kernel - 1) // stride if convolves else 0 if step.kind is Kind.LINEAR else halos[0])
    return halos


def extents(layer: Layer, reach: Reach | None, steps: list[Step]) -> list[tuple[int, int]]:
    """Largest height and width of a row before the first step and after each."""
    here = layer.height, layer.width
    if reach is not None:
        here = min(reach.kernel[0], here[0]), min(reach.kernel[1], here[1])
    found = [here]
    for step in steps:
        if step.kind is Kind.LINEAR:
            here = step.layer.height, step.layer.width
        elif step.kind in CONVOLUTIONS:
            height, width = _widened(step, here)
            here = min(height, step.layer.height), min(width, step.layer.width)
        found.append(here)
    return found


def _widened(step: Step, extent: tuple[int, int]) -> tuple[int, int]:
    """What a transposed convolution makes of a height and width."""
    kh, kw, sh, sw = step.window[:4]
    return (extent[0] - 1) * sh + kh, (extent[1] - 1) * sw + kw


def space(layer: Layer, extents: list[tuple[int, int]], halos: list[int], steps: list[Step], lanes: int) -> int:
    """Numbers that a row takes where it is largest; extents and halos before the first step and after each.

    Bundles (`lanes` is 1) need nothing on the way from one layer to the next.
    """
    (height, width), halo = extents[0], halos[0]
    space = height * (width + 2 * halo) * layer.channels
    for step, before, (height, width), halo in zip(steps, extents, extents[1:], halos[1:], strict=False):
        channels = step.layer.channels
        space = max(space, height * (width + 2 * halo) * channels)
        if lanes > 1 and step.kind in CONVOLUTIONS:
            if step.kind is Kind.THIN_CONVOLUTION:
                spelled_out = _thin(step, before, (height, width), lanes)
            else:
                spelled_out = prod(_widened(step, before)) * channels
            space = max(space, spelled_out)
    return whole(space, lanes)


def _thin(step: Step, before: tuple[int, int], after: tuple[int, int], lanes: int) -> int:
    """Numbers for a row after a thin convolution, windows of one of its lines, their sums and strips (see steps.h)."""
    channels, (kh, kw, _, sw) = step.layer.channels, step.window[:4]
    height, width = _widened(step, before)
    pitch, window = whole(width * channels, lanes), whole(kh * kw * channels, lanes)
    strips = -(-kw // sw) * (kh * pitch + lanes)
    return whole(prod(after) * channels, lanes) + before[1] * window + lanes + height * pitch + strips


def operations(layer: Layer, extents: list[tuple[int, int]], steps: list[Step]) -> int:
    """Additions and multiplications in products of one row that no border cuts."""
    total, depth = 0, layer.channels
    for step, (height, width) in zip(steps, extents, strict=False):
        size = step.layer.channels
        if step.kind in CONVOLUTIONS:
            total += 2 * height * width * depth * step.window[0] * step.window[1] * size
        elif step.kind is Kind.LINEAR:
            total += 2 * depth * step.layer.height * step.layer.width * size
        depth = size
    return total
