"""Follows a file that another process writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Watch = Callable[[str], None]


class Lines:
    """Lines that were appended to a file since it was last looked at.

    Args:
        path: The file; it need not exist yet.
        start: Bytes to leave out.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path, self._start, self._read = path, start, start
        self._rest = b""

    def pass_on(self, watch: Watch) -> None:
        """Gives every new whole line to `watch`, of a line that was overwritten in place what it became."""
        new = self._after(self._read)
        self._read += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            watch(line.rsplit(b"\r", 1)[-1].decode(errors="replace"))

    def text(self) -> str:
        """All of it."""
        return self._after(self._start).decode(errors="replace")

    def _after(self, position: int) -> bytes:
        if not self._path.is_file():
            return b""
        with self._path.open("rb") as file:
            file.seek(position)
            return file.read()
