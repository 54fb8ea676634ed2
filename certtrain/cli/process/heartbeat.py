"""Nothing is silent for long: what goes on is said every ten seconds in which nothing else is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleRenderable, RenderHook

SECONDS = 10.0


class Heartbeat(RenderHook):
    """Speaks while nobody else does; a live bar that moves counts as speaking, too.

    It has a thread of its own, so that it is heard while the main one computes.

    Args:
        console: Where it speaks, and listens.
        seconds: Of silence before it does.
    """

    def __init__(self, console: Console, seconds: float = SECONDS) -> None:
        self._console = console
        self._seconds = seconds
        self._heard = time.monotonic()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """See `RenderHook`: something is printed."""
        self._heard = time.monotonic()
        return renderables

    @contextmanager
    def during(self, doing: str | Callable[[], str]) -> Iterator[None]:
        """Speaks inside.

        Args:
            doing: What goes on, or tells it at any moment.
        """
        started, ended = time.monotonic(), threading.Event()
        self._heard = started
        thread = threading.Thread(target=self._speak, args=(doing, started, ended), daemon=True)
        self._console.push_render_hook(self)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._console.pop_render_hook()

    def _speak(self, doing: str | Callable[[], str], started: float, ended: threading.Event) -> None:
        while not ended.wait(max(0.0, self._heard + self._seconds - time.monotonic())):
            now = time.monotonic()
            if now >= self._heard + self._seconds:
                what = doing if isinstance(doing, str) else doing()
                self._console.print(f"{what} ({now - started:.0f} s)", highlight=False, markup=False, soft_wrap=True)
