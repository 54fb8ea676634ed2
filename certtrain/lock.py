"""Who is at work in a run directory: a lock that the kernel gives up with its process, however that ends."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from certtrain.errors import CerttrainError

try:
    import fcntl
except ImportError:  # no POSIX: runs are not protected from each other
    fcntl = None  # type: ignore[assignment]

NAME = "run.lock"


class InUse(CerttrainError):
    """Another process works in the directory."""


@contextmanager
def locked(directory: Path, name: str = NAME) -> Iterator[None]:
    """Keeps other processes out of a run directory; a file system that knows no locks lets everybody in.

    The file names the process for people. Nothing is decided by it: a lock without a process does not exist.

    Args:
        directory: The run directory.
        name: Of the lock's file: processes that share the work there have one each.

    Raises:
        InUse: If another process is at work there.
    """
    path = directory / name
    descriptor = _acquire(path)
    try:
        os.truncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)


def holder(directory: Path, name: str = NAME) -> str | None:
    """Which process is at work in a directory, in words; None if there is none."""
    try:
        descriptor = os.open(directory / name, os.O_RDWR)
    except OSError:
        return None
    try:
        if _lock(descriptor):
            return None
        return os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not (_lock(descriptor) or _lock_later(descriptor)):
            os.close(descriptor)
            raise InUse(f"{path.parent} is in use by {holder(path.parent, path.name) or 'another process'}")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # whoever held it has removed the file in between


def _lock_later(descriptor: int) -> bool:
    """Tries again: whoever asks for the holder holds the lock for a moment."""
    time.sleep(0.2)
    return _lock(descriptor)


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
