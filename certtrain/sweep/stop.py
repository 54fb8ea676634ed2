"""Whether a sweep shall stop, and how soon."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol


class Stopping(Protocol):
    """What a running job looks at."""

    @property
    def asked(self) -> bool:
        """No further job is to start, and those that run are to save and end."""

    @property
    def urgent(self) -> bool:
        """They are to be killed."""


class Stop:
    """Asked to stop by Ctrl-C, SIGTERM or a failure; a second signal asks to stop at once.

    Nothing is interrupted: whoever runs jobs looks here, ends them in order and can still report about all of them.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._urgent = threading.Event()
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    @property
    def urgent(self) -> bool:
        return self._urgent.is_set()

    def ask(self) -> None:
        """Asks once more."""
        (self._urgent if self._asked.is_set() else self._asked).set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Inside, SIGINT and SIGTERM ask to stop. Only the main thread can arrange it; in others, nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.ask()
