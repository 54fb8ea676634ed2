"""Looks after something now and then, beside everything else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

SECONDS = 1.0


class Watch:
    """Calls a function about once a second, inside of its block, from a thread of its own.

    What the function raises is raised at the end of the block.

    Args:
        look: The function.
        seconds: Between two calls.
    """

    def __init__(self, look: Callable[[], None], seconds: float = SECONDS) -> None:
        self._look, self._seconds = look, seconds
        self._over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        """Begins."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends."""
        self._over.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self._look()
            except Exception as error:
                self._error = error
                return
