"""Signals ask a run to stop; it does so at the end of a generation, on all ranks at once, with its state saved.

A handler only sets a flag. Whatever it did itself (saving, a collective operation) could happen in the middle of a
step, and on one rank of several while the others wait for it elsewhere.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist


class Stopped(BaseException):
    """A run ends because a signal asked for it; no error, so that nothing that handles errors takes it for one.

    Attributes:
        signal: Which one.
        step: Generations that last.ckpt holds, all that were made; None if the run ended at once.
    """

    def __init__(self, number: int, step: int | None = None) -> None:
        self.signal = signal.Signals(number)
        self.step = step
        where = "" if step is None else f" at step {step}"
        super().__init__(f"stopped{where} by {self.signal.name}")


def signal_numbers(names: Iterable[str]) -> tuple[int, ...]:
    """The keyboard's signal and those of these names that this system knows."""
    known = signal.Signals.__members__
    return (signal.SIGINT, *(known[name] for name in names if name in known))


class StopRequest:
    """What signals have asked for.

    Between `wait` and `stop_waiting` the first signal is noted, for whoever asks `agreed` at the end of a generation;
    the second one, and every one outside, raises `Stopped` at once.

    Args:
        numbers: The signals that are listened to.
        tell: Is given one line about a signal that was noted; called wherever a handler may be, so also in the middle
            of printing.
    """

    def __init__(self, numbers: Sequence[int] = (), tell: Callable[[str], None] = lambda line: None) -> None:
        self.numbers = tuple(numbers)
        self._tell = tell
        self._noted = 0
        self._waiting = False

    def wait(self) -> None:
        """From now on a signal is noted."""
        self._waiting = True
        self.install()

    def stop_waiting(self) -> None:
        """From now on a signal ends the run at once."""
        self._waiting = False

    def agreed(self, device: torch.device) -> int:
        """The signal to stop for, the same on every rank, 0 if there is none; every rank has to ask.

        Args:
            device: Where tensors of the process group live.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return self._noted
        noted = torch.tensor(self._noted, device=device)
        dist.all_reduce(noted, dist.ReduceOp.MAX)
        return int(noted)

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Handles the signals inside; outside of the main thread, which alone may do that, there are none."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in self.numbers}
        self.install()
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Puts the handlers in place again, once Lightning has replaced them by its own."""
        if threading.current_thread() is threading.main_thread():
            for number in self.numbers:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._waiting and not self._noted:
            self._noted = number
            self._tell(
                f"{signal.Signals(number).name}: stops at the end of this generation; a second signal stops at once"
            )
            return
        raise Stopped(number)
