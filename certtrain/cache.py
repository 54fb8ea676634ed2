"""The folder in which what is dear to make is kept: it was put there whole, and by this user.

The name of a file ends with a digest of what is in it, so one that was cut off or changed is found out before it is
used. It is then made again. Files appear under their names by being renamed: processes that start together never see
half of one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# The folder; empty keeps nothing.
VARIABLE = "CERTTRAIN_CACHE"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
DIGITS = 20


def is_off() -> bool:
    """Whether nothing is to be kept."""
    return os.environ.get(VARIABLE) == ""


@dataclass(frozen=True)
class Cache:
    """Files of one kind.

    Attributes:
        kind: What they are.
        suffix: Of their names.
    """

    kind: str
    suffix: str

    def find(self, name: str) -> Path | None:
        """A file as it was stored; one that is not any more is removed.

        Raises:
            OSError: If there is no folder to write to, or it belongs to somebody else.
        """
        for kept in sorted(self.folder().glob(f"{name}-*{self.suffix}")):
            if _is_whole(kept):
                return kept
            kept.unlink(missing_ok=True)
        return None

    def store(self, name: str, make: Callable[[Path], None]) -> Path:
        """Keeps a file.

        Args:
            name: Without a suffix.
            make: Writes it to a path.

        Raises:
            OSError: If it cannot be written.
        """
        folder = self.folder()
        with tempfile.TemporaryDirectory(dir=folder) as workshop:
            made = Path(workshop, name)
            make(made)
            made.chmod(0o700)  # whoever writes it leaves to the umask who else may
            return made.replace(folder / f"{name}-{digest_of(made)}{self.suffix}")

    def folder(self) -> Path:
        """The user's own folder in the cache, which others may share: what is in it is trusted.

        Raises:
            PermissionError: If it belongs to another user.
        """
        folder = _root() / f"{self.kind}-{os.getuid()}"
        folder.mkdir(parents=True, exist_ok=True)
        if {folder.stat().st_uid, folder.lstat().st_uid} != {os.getuid()}:
            raise PermissionError(f"{folder} belongs to somebody else; {VARIABLE} names another folder")
        if stat.S_IMODE(folder.stat().st_mode) != stat.S_IRWXU:
            folder.chmod(stat.S_IRWXU)
        return folder


def digest_of(file: Path) -> str:
    """Of what is in a file."""
    with file.open("rb") as opened:
        found = hashlib.sha256()
        while block := opened.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:DIGITS]


def _root() -> Path:
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "certtrain"


def _is_whole(file: Path) -> bool:
    """Whether it is the user's, and what was written under this name."""
    try:
        found = file.stat()
        own = found.st_uid == os.getuid() and not found.st_mode & OTHERS_WRITE
        return own and file.stem.endswith(f"-{digest_of(file)}")
    except FileNotFoundError:  # another process has found it damaged, too
        return False
