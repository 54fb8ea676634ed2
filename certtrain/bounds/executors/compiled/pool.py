"""The threads that torch computes with.

They wait actively for their next work, by default for milliseconds. Threads of our own would have to share the
processors with them, and two cores would do hardly more than one (crown_ibp with gradients on cnn5: 46 ms instead of
34).
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch

MAPS = Path("/proc/self/maps")
# GNU's library and LLVM's, which Intel's is too; all of them have GNU's entry.
LIBRARIES = ("libgomp", "libomp", "libiomp5")
ENTRY = "GOMP_parallel"


@functools.cache
def parallel() -> ctypes.c_void_p | None:
    """Address of GOMP_parallel in the OpenMP library that this process has loaded; None where that cannot be told.

    Of several libraries it is torch's own. As for torch itself, the pool is not there for a process that was forked.
    """
    try:
        paths = {line.split(maxsplit=5)[5].strip() for line in MAPS.read_text().splitlines() if ".so" in line}
        found = [path for path in paths if Path(path).name.startswith(LIBRARIES)]
        (path,) = [path for path in found if path.startswith(str(Path(torch.__file__).parent))] or found
        return ctypes.cast(getattr(ctypes.CDLL(path), ENTRY), ctypes.c_void_p)
    except (OSError, AttributeError, ValueError, IndexError):  # no such file, library or entry, or several libraries
        return None
