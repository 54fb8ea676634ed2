"""A moment by which what is being computed should be done: long computations look at it between two pieces of work.

    with until(time.perf_counter() + 10):
        relaxation.bound(...)   # raises OutOfTime when ten seconds are over, within a piece of work

It belongs to the context that computes, like a signal, so that what lies between need not pass it on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# In time.perf_counter().
_moment: ContextVar[float] = ContextVar("deadline", default=math.inf)


class OutOfTime(Exception):
    """The deadline has passed; what was computed so far is lost."""


@contextmanager
def until(moment: float) -> Iterator[None]:
    """Computes under a deadline, in `time.perf_counter()`; of nested ones the earliest counts."""
    token = _moment.set(min(moment, _moment.get()))
    try:
        yield
    finally:
        _moment.reset(token)


def check_deadline() -> float:
    """Between two pieces of work.

    Returns:
        Seconds that are left; infinity without a deadline.

    Raises:
        OutOfTime: If the deadline has passed.
    """
    moment = _moment.get()
    left = moment - time.perf_counter() if moment < math.inf else math.inf
    if left < 0:
        raise OutOfTime("the time for this computation is used up")
    return left
