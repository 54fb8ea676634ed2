"""Keeps freed memory in the process, where the C library would hand every large block back to the kernel.

Bound computation makes large temporaries of the same sizes again and again. With glibc's defaults each is mapped,
faulted in page by page and unmapped. Kept, a generation of 64 members took two thirds of the time when this was written
(digits, deeppoly, batch 128, one core: 230 against 350 ms).
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3) in glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Tells glibc to take large blocks from the heap and not to trim it; True if it did. Elsewhere does nothing."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
