"""The folder in which compiled code is kept: what is loaded from it was put there whole, and by this user.

The name of a file ends with a digest of what is in it, so one that was cut off or changed is found out before it is
loaded, which would end the process (SIGBUS). It is then made again. Files appear under their names by being renamed:
processes that start together never see half of one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

# Folder of compiled code; empty switches compilation off.
VARIABLE = "CERTTRAIN_CACHE"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def is_off() -> bool:
    """Whether compiled code is not wanted."""
    return os.environ.get(VARIABLE) == ""


def fetch(name: str, make: Callable[[Path], None]) -> Path:
    """A library, made if it is not there yet or no longer as it was made.

    Args:
        name: Of the library, without a suffix.
        make: Writes it to a path.

    Raises:
        OSError: If there is no folder to write to, or it belongs to somebody else.
    """
    folder = private_folder()
    for kept in sorted(folder.glob(f"{name}-*.so")):
        if _is_whole(kept):
            return kept
        kept.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as workshop:
        made = Path(workshop, name)
        make(made)
        made.chmod(0o700)  # compilers leave to the umask who else may write
        return made.replace(folder / f"{name}-{_digest(made)}.so")


def private_folder() -> Path:
    """The user's own folder in the cache, which others may share: code from it runs in this process.

    Raises:
        PermissionError: If it belongs to another user.
    """
    folder = _cache() / f"compiled-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    if {folder.stat().st_uid, folder.lstat().st_uid} != {os.getuid()}:
        raise PermissionError(f"{folder} belongs to somebody else; {VARIABLE} names another folder")
    if stat.S_IMODE(folder.stat().st_mode) != stat.S_IRWXU:
        folder.chmod(stat.S_IRWXU)
    return folder


def _cache() -> Path:
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "certtrain"


def _is_whole(library: Path) -> bool:
    """Whether it is the user's, and what was written under this name."""
    try:
        found = library.stat()
        own = found.st_uid == os.getuid() and not found.st_mode & OTHERS_WRITE
        return own and library.stem.endswith(f"-{_digest(library)}")
    except FileNotFoundError:  # another process has found it damaged, too
        return False


def _digest(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()[:20]
