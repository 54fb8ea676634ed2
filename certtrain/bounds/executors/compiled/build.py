"""Compiles C code for the processor at hand, once, and loads it.

The result is kept in the user's cache (`cache`) under a name made of everything that it depends on. Nothing here is
ever needed: where there is no compiler, or it fails, a warning says so and bounds are computed by tensor operations.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from certtrain.bounds.executors.compiled import cache
from certtrain.errors import one_line

_log = logging.getLogger(__name__)

HEADERS = (
    "adjoints.h",
    "bundle_adjoints.h",
    "bundle_product_adjoints.h",
    "bundle_products.h",
    "bundle_sums.h",
    "bundles.h",
    "geometry.h",
    "products.h",
    "steps.h",
    "task.h",
)
SOURCES = tuple(Path(__file__).with_name(name) for name in ("substitute.c", *HEADERS))
FUSED = tuple(Path(__file__).with_name(name) for name in ("fused.c", "task.h", "team.h"))
EVALUATE = tuple(Path(__file__).with_name(name) for name in ("evaluate.c", "task.h", "team.h"))
# No -ffast-math: NaN and infinity keep their meaning.
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread")
NATIVE = ("-march=native", "-mcpu=native")
DTYPES = {torch.float32: (), torch.float64: ("-DCERTTRAIN_DOUBLE",)}
SECONDS = 120
# No compiler, no home, no text: whatever it is, bounds can be computed without.
FAILURES = (OSError, subprocess.SubprocessError, RuntimeError, ValueError)

# Address of what there is to do, threads, address of GOMP_parallel or None.
Pass = Callable[[ctypes.c_void_p, int, ctypes.c_void_p | None], None]
# Address of a task, threads, address of GOMP_parallel or None, address of the progress, seconds -> see `task.Ended`.
Entry = Callable[[ctypes.c_void_p, int, ctypes.c_void_p | None, ctypes.c_void_p, float], int]


@dataclass(frozen=True)
class Compiled:
    """The compiled code for one floating-point type.

    Attributes:
        bound: Bounds rows one after the other.
        bound_bundles: The same for rows in bundles.
        differentiate: The same for derivatives.
        differentiate_bundles: The same for derivatives of rows in bundles.
        lanes: Numbers in a vector register: channels are padded to a multiple, or so many rows make a bundle.
    """

    bound: Entry
    bound_bundles: Entry
    differentiate: Entry
    differentiate_bundles: Entry
    lanes: int


@dataclass(frozen=True)
class Fused:
    """The element-wise parts of optimised bounds for one floating-point type, see fused.c.

    Attributes:
        follow: Rows along lines.
        value: Values of the lines that rows took.
        corner: Least values of forms on boxes.
        step: A step of Adam.
    """

    follow: Pass
    value: Pass
    corner: Pass
    step: Pass


@dataclass(frozen=True)
class Evaluating:
    """Evaluation of networks at points for one floating-point type, see evaluate.c.

    Attributes:
        forwards: Outputs.
        backwards: Derivatives by the points.
        lanes: Points in a vector.
    """

    forwards: Pass
    backwards: Pass
    lanes: int


@functools.cache
def compiled(dtype: torch.dtype, lanes: int | None = None) -> Compiled | None:
    """The code for a type; None where it cannot be had, for a reason that a warning tells unless it was told before.

    Args:
        dtype: Of all tensors.
        lanes: Numbers in a vector; as many as the processor's hold where none is given.
    """
    width = () if lanes is None else (f"-DVECTOR_BYTES={lanes * dtype.itemsize}",)
    library = _loaded(dtype, SOURCES, width)
    if library is None:
        return None
    bound, bound_bundles = library.certtrain_substitute, library.certtrain_substitute_bundles
    differentiate, differentiate_bundles = library.certtrain_differentiate, library.certtrain_differentiate_bundles
    entries = bound, bound_bundles, differentiate, differentiate_bundles
    for entry in (*entries, library.certtrain_lanes):
        entry.restype = ctypes.c_int64
    for entry in entries:
        entry.argtypes = (ctypes.c_void_p, ctypes.c_int64, *(ctypes.c_void_p,) * 2, ctypes.c_double)
    return Compiled(*entries, library.certtrain_lanes())


@functools.cache
def fused(dtype: torch.dtype) -> Fused | None:
    """The element-wise parts; None where they cannot be had, as in `compiled`."""
    # Square roots of vectors: nobody reads what a scalar one would leave in errno.
    library = _loaded(dtype, FUSED, ("-fno-math-errno",))
    if library is None:
        return None
    entries = library.certtrain_follow, library.certtrain_value, library.certtrain_corner, library.certtrain_step
    for entry in entries:
        entry.restype = None
        entry.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    return Fused(*entries)


@functools.cache
def evaluating(dtype: torch.dtype) -> Evaluating | None:
    """The code that evaluates networks; None where it cannot be had, as in `compiled`."""
    library = _loaded(dtype, EVALUATE, ())
    if library is None:
        return None
    entries = library.certtrain_evaluate, library.certtrain_evaluate_back
    for entry in entries:
        entry.restype = None
        entry.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    library.certtrain_lanes.restype = ctypes.c_int64
    return Evaluating(*entries, library.certtrain_lanes())


def _loaded(dtype: torch.dtype, sources: Sequence[Path], definitions: tuple[str, ...]) -> ctypes.CDLL | None:
    if cache.is_off():
        return None
    if dtype not in DTYPES:
        _warn(f"there is none for {dtype}")
        return None
    try:
        return ctypes.CDLL(str(_library(sources, (*DTYPES[dtype], *definitions))))
    except FAILURES as error:
        _warn(one_line(error))
        return None


@functools.cache
def _warn(reason: str) -> None:
    """Once for each reason, where people read: what follows takes several times as long."""
    _log.warning("bounds are computed without compiled code, which takes several times as long: %s", reason)


@functools.cache
def bundlers(dtype: torch.dtype) -> dict[int, Compiled]:
    """How many rows a bundle may have -> the code for such bundles: for the widest vectors and for half of them."""
    widest = compiled(dtype)
    if widest is None:
        return {}
    narrow = compiled(dtype, widest.lanes // 2) if widest.lanes > 2 else None
    return {code.lanes: code for code in (widest, narrow) if code is not None}


def _library(sources: Sequence[Path], definitions: tuple[str, ...]) -> Path:
    """The shared library of some sources, the first of which reads the others, compiled if it is not there yet.

    Raises:
        OSError: If there is no compiler or no folder to write to.
        SubprocessError: If the compiler fails or takes too long.
    """
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError("there is no C compiler")
    asked = _run(compiler, "--version")
    asked.check_returncode()
    # Homes may be shared by machines with different C libraries.
    system = platform.machine() + "".join(platform.libc_ver())
    depends_on = (
        *(source.read_text() for source in sources),
        asked.stdout,
        str(FLAGS),
        str(definitions),
        system,
        _processor(),
    )
    digest = hashlib.sha256("\0".join(depends_on).encode()).hexdigest()[:20]
    return cache.fetch(f"{sources[0].stem}-{digest}", lambda made: _compile(compiler, sources[0], definitions, made))


def _compile(compiler: str, source: Path, definitions: tuple[str, ...], made: Path) -> None:
    complaints = []
    for native in NATIVE:  # x86 compilers know the first one, those of ARM the second
        done = _run(compiler, *FLAGS, native, *definitions, str(source), "-o", str(made))
        if done.returncode == 0:
            return
        complaints += done.stderr.splitlines()
    reason = next((line for line in complaints if "error" in line), " ".join(complaints[:1]))
    raise subprocess.SubprocessError(f"{compiler} failed: {reason}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)


def _processor() -> str:
    """What `native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))
