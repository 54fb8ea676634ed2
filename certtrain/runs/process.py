"""A command in a process of its own, whose output is passed on as it comes."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

ERROR = "certtrain: error: "
# For the process to end after it was told to: it saves, which may take as long as a validation.
GRACE_S = 60.0
POLL_S = 0.2


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; minus the signal that killed it.
        error: What it said was wrong, in one line; "" if it said nothing.
        interrupted: Whether it was stopped from here.
    """

    code: int
    error: str
    interrupted: bool


def run_process(command: Sequence[str], environment: Mapping[str, str], tell: Callable[[str], None]) -> Ended:
    """Runs a command to its end, in the current directory.

    KeyboardInterrupt, also that of a notebook, is passed on as Ctrl-C: after the first the process saves and ends,
    after the second it ends at once. It leads a session of its own, so that a terminal's Ctrl-C does not reach it
    twice.

    Args:
        command: What to run.
        environment: Of the process.
        tell: Gets each line of its output, standard error among it, with its line end; lines that say what is wrong
            are kept for the result instead.
    """
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    try:
        error, interrupted = _follow(process, lines, tell)
    finally:
        _end(process)
        reader.join(POLL_S)
    return Ended(process.wait(), error, interrupted)


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put(None)


def _follow(
    process: subprocess.Popen[str], lines: queue.Queue[str | None], tell: Callable[[str], None]
) -> tuple[str, bool]:
    """Passes lines on until there are no more, and signals as they come."""
    error, interrupted = "", False
    while True:
        try:
            line = lines.get(timeout=POLL_S)
            if line is None:
                return error, interrupted
            if line.startswith(ERROR):
                error = line.removeprefix(ERROR).strip()
            else:
                tell(line)
        except queue.Empty:
            # A process that is gone may have left one behind that holds its output open.
            if process.poll() is not None and lines.empty():
                return error, interrupted
        except KeyboardInterrupt:
            interrupted = True
            if process.poll() is None:
                process.send_signal(signal.SIGINT)


def _end(process: subprocess.Popen[str]) -> None:
    """Leaves nothing of a process behind, also where its follower failed."""
    try:
        if process.poll() is None:
            process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def to_standard_output(line: str) -> None:
    """Prints a line where Python prints, which in a notebook is no file."""
    sys.stdout.write(line)
    sys.stdout.flush()


def to_nobody(line: str) -> None:
    """Drops a line."""
