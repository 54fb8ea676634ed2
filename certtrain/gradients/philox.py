"""Random bits and normal numbers that are functions of a key and a counter, the same on every device.

Philox 4x64 with ten rounds (Salmon et al., SC 2011) enciphers a counter: any part of any stream can be had without what
comes before it. On CPUs NumPy computes it; elsewhere tensor operations do, with the same bits, so that noise is drawn
where it is used instead of being sent there. Normal numbers come from bits by the Box-Muller transform in single
precision, whose logarithms and cosines may differ between devices in their last digit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

_ROUNDS = 10
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_LOW = 0xFFFFFFFF
# Which half of a word in memory is the upper one.
_UPPER = 1 if sys.byteorder == "little" else 0

# Words that are turned into numbers at once: what is written is read again while it is in the cache.
_CHUNK = 1 << 14


def bits(key: int, generation: int, streams: range, words: int, device: torch.device) -> Int[Tensor, "streams words"]:
    """Uniform 64-bit words, held in int64.

    Args:
        key: From 0 to 2⁶³ - 1.
        generation: Third word of the counter.
        streams: Fourth word of the counter; each begins a row.
        words: Of each row.
        device: Where they are drawn.
    """
    if device.type == "cpu":
        return by_numpy(key, generation, streams, words)
    return by_tensors(key, generation, streams, words, device)


def normal(
    key: int, generation: int, streams: range, numbers: int, device: torch.device
) -> Float[Tensor, "streams numbers"]:
    """Standard normal numbers in float32; arguments as of `bits`.

    A word gives two numbers √(-2 ln u) cos 2πv and √(-2 ln u) sin 2πv with 32 bits each for u and v, the former in
    the first half of a row and the latter in the second. None is larger than 6.8.
    """
    half = (numbers + 1) // 2
    found = torch.empty((len(streams), 2 * half), dtype=torch.float32, device=device)
    if device.type != "cpu":
        words = by_tensors(key, generation, streams, half, device)
        _box_muller(_high(words).float(), (words & _LOW).float(), found[:, :half], found[:, half:])
        return found[:, :numbers]

    def draw(rows: range) -> None:
        halves = _words(key, generation, streams[rows.start : rows.stop], half).view(np.uint32)
        upper, lower = halves[:, _UPPER::2], halves[:, 1 - _UPPER :: 2]
        part = found[rows.start : rows.stop]
        for at in _pieces(half, len(rows)):
            u, v = (torch.from_numpy(bits[:, at].astype(np.float32)) for bits in (upper, lower))
            _box_muller(u, v, part[:, :half][:, at], part[:, half:][:, at])

    _spread(draw, len(streams), half)
    return found[:, :numbers]


def _pieces(half: int, rows: int) -> Iterator[slice]:
    """Columns whose words are worked on at once."""
    step = max(1, _CHUNK // max(rows, 1))
    return (slice(start, min(start + step, half)) for start in range(0, half, step))


def _spread(draw: Callable[[range], None], streams: int, half: int) -> None:
    """Rows on as many threads as torch has, if that is worth while; which thread draws a row changes nothing."""
    rows = max(1, min(streams, _CHUNK // max(half, 1)))
    parts = [range(start, min(start + rows, streams)) for start in range(0, streams, rows)]
    threads = min(torch.get_num_threads(), len(parts))
    if threads == 1:
        for part in parts:
            draw(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(draw, parts))


def by_numpy(key: int, generation: int, streams: range, words: int) -> Int[Tensor, "streams words"]:
    """See `bits`; on the CPU."""
    return torch.from_numpy(_words(key, generation, streams, words).view(np.int64))


def _words(key: int, generation: int, streams: range, words: int) -> NDArray[np.uint64]:
    """[streams, words]."""
    found = np.empty((len(streams), words), dtype=np.uint64)
    source = np.random.Philox(key=[key, 0])
    # One is set back to the beginning of each stream: making another takes as long as drawing a thousand words.
    state = source.state
    for row, stream in enumerate(streams):
        state["state"]["counter"] = np.array([0, 0, generation, stream], dtype=np.uint64)
        source.state = state
        found[row] = source.random_raw(words)
    return found


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def _high(word: Tensor) -> Tensor:
    """The upper half of each word; the shift of signed numbers would fill up with signs."""
    return (word >> 32) & _LOW


def _product(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Upper and lower 64 bits of a product of unsigned words, in 32-bit parts: sums wrap around, bits stay right."""
    low, high = factor & _LOW, factor >> 32
    word_low, word_high = word & _LOW, _high(word)
    middle = word_high * low + _high(word_low * low)
    other = word_low * high + (middle & _LOW)
    return word_high * high + _high(middle) + _high(other), word * _signed(factor)


def by_tensors(
    key: int, generation: int, streams: range, words: int, device: torch.device
) -> Int[Tensor, "streams words"]:
    """See `bits`; on any device."""
    blocks = -(-words // 4)
    # NumPy counts up before it draws.
    count = torch.arange(1, blocks + 1, dtype=torch.int64, device=device)
    stream = torch.arange(streams.start, streams.stop, streams.step, dtype=torch.int64, device=device)
    shape = (len(streams), blocks)
    state = [
        count.expand(shape),
        torch.zeros((), dtype=torch.int64, device=device).expand(shape),
        torch.full((), generation, dtype=torch.int64, device=device).expand(shape),
        stream[:, None].expand(shape),
    ]
    keys = [key, 0]
    for _ in range(_ROUNDS):
        (high_0, low_0), (high_1, low_1) = (_product(state[2 * i], _MULTIPLIERS[i]) for i in range(2))
        state = [high_1 ^ state[1] ^ _signed(keys[0]), low_1, high_0 ^ state[3] ^ _signed(keys[1]), low_0]
        keys = [k + w for k, w in zip(keys, _WEYL, strict=True)]
    return torch.stack(state, dim=-1).reshape(len(streams), -1)[:, :words]


def _box_muller(upper: Tensor, lower: Tensor, cosines: Tensor, sines: Tensor) -> None:
    """Writes two normal numbers of each word, of whose halves, from 0 to 2³² as float32, nothing is left."""
    radius = upper.add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = lower.mul_(2 * math.pi * 2.0**-32)
    torch.mul(radius, torch.cos(angle), out=cosines)
    torch.mul(radius, angle.sin_(), out=sines)
