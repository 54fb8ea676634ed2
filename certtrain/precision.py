"""float32 that is float32: what proves something is computed without TF32, bfloat16 or autocast.

Nvidia's convolutions keep 10 bits of float32 by default, matrix products on request; oneDNN computes in bfloat16 on
request; autocast casts to 16 bits. Bounds that are rounded like that prove nothing, so bounds, and outputs that are
evidence, are computed inside `full_float32`. Derivatives are taken wherever the caller takes them: they prove nothing,
and follow the caller's settings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch

# Torch has such a setting for everything, each backend, and its operations. Each inherits from those before it unless
# it was set by itself, so they are read in this order: what is not full yet when its parents are was set by itself.
# Only that is written, and what inherits still does afterwards.
_FULL = "ieee"
_BACKENDS = ("cuda", "mkldnn")
_SETTINGS = (("generic", "all"), *((backend, op) for backend in _BACKENDS for op in ("all", "conv", "rnn", "matmul")))
_PRODUCTS = {(backend, "matmul") for backend in _BACKENDS}
# Not torch.backends.*: there, setting mkldnn.fp32_precision sets the one for everything (2.13). Torch before 2.9 has
# neither, nor anything that is inherited.
_read = getattr(torch._C, "_get_fp32_precision_getter", None)
_write = getattr(torch._C, "_set_fp32_precision_setter", None)

Undo = Callable[[], object]


class _Inside:
    """Who computes in full precision. Threads share the settings: they are full as long as any of them is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._undo: list[Undo] = []

    def enter(self) -> None:
        """Sets what is not full; who is not the first finds that done."""
        with self._lock:
            self._count += 1
            if self._count == 1:
                self._undo = _make_full() if _read is not None else _make_full_before_2_9()

    def leave(self) -> None:
        """The last one puts back what was there."""
        with self._lock:
            self._count -= 1
            if self._count == 0:
                for undo in reversed(self._undo):
                    undo()


def _make_full() -> list[Undo]:
    """Sets everything; returns what undoes it, in reverse order."""
    assert _read is not None
    assert _write is not None
    found = {}
    for key in _SETTINGS:
        if (value := _read(*key)) != _FULL:
            found[key] = value
            _write(*key, _FULL)
    undo: list[Undo] = [partial(_write, *key, value) for key, value in found.items()]
    # An older setting stands for both products. Torch refuses to read it (its profiler does) where it contradicts them,
    # so it goes along, unless it did before. It overwrites them, so that it comes back first.
    if found.keys() >= _PRODUCTS:
        undo += _make_products_full()
    return undo


def _make_products_full() -> list[Undo]:
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        return []
    torch.set_float32_matmul_precision("highest")
    return [partial(torch.set_float32_matmul_precision, before)]


def _make_full_before_2_9() -> list[Undo]:
    undo, cudnn = _make_products_full(), torch.backends.cudnn
    if cudnn.allow_tf32:
        cudnn.allow_tf32 = False
        undo.append(partial(setattr, cudnn, "allow_tf32", True))
    return undo


_INSIDE = _Inside()


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Inside, float32 products and convolutions are rounded like float32, whatever the settings; these come back after.

    The settings are the process's: other threads compute in full precision meanwhile. May be nested; takes
    microseconds.

    Args:
        device: Where the tensors are; its autocast is off inside, in this thread.
    """
    kind = device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    _INSIDE.enter()
    try:
        with torch.autocast(kind, enabled=False) if casts else nullcontext():
            yield
    finally:
        _INSIDE.leave()
