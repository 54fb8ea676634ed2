"""One job in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping

from certtrain.lock import holder
from certtrain.sweep.jobs import OUTPUT, TRACEBACK, Job, Outcome, Status
from certtrain.sweep.lines import Lines, Watch
from certtrain.sweep.stop import Stopping

# How often a running job is looked at.
POLL_SECONDS = 0.1
# A job that is told to stop finishes its generation and writes a checkpoint. After this it is killed.
GRACE_SECONDS = 60.0
# Ranks end a little after the first one.
STRAGGLE_SECONDS = 10.0
# Lines of output that stand in for a traceback where a process left none.
LAST_LINES = 60


def run(job: Job, environment: Mapping[str, str], stop: Stopping, watch: Watch, rank: int = 0) -> Outcome:
    """Runs a job to its end, or until it is told to stop.

    The process writes its output into its directory by itself, so that nothing is lost if this process is. It leads a
    process group: its ranks are ended with it, and Ctrl-C in the terminal reaches it by way of `stop` only.

    Args:
        job: What to run.
        environment: Of its process.
        stop: Asked from time to time.
        watch: Gets each line of output.
        rank: Of the process, where ranks are started by someone else; each appends to a file of its own.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    if rank == 0 and (before := _await_earlier(job, stop, watch)) is not None:
        return before
    if rank == 0:
        (job.directory / TRACEBACK).unlink(missing_ok=True)
    log = job.directory / (f"output-{rank}.log" if rank else OUTPUT)
    started = time.monotonic()
    with log.open("ab") as sink:
        lines = Lines(log, sink.tell())
        process = subprocess.Popen(
            job.command,
            cwd=job.folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        stopped = _follow(process, job, stop, lambda: lines.pass_on(watch))
    except BaseException:  # submitit ends the process that waits here by an exception
        _signal(process, signal.SIGTERM)
        _wait(process, GRACE_SECONDS)
        raise
    finally:
        _end(process)
    lines.pass_on(watch)
    status = _status(job, process.returncode, stopped)
    if status == "failed" and not (job.directory / TRACEBACK).exists():
        (job.directory / TRACEBACK).write_text(_last_words(process.returncode, lines.text()), encoding="utf-8")
    return Outcome(status, process.returncode, time.monotonic() - started)


def _status(job: Job, exit_code: int, stopped: bool) -> Status:
    if exit_code == 0 and job.is_finished:
        return "done"
    if job.is_pruned:
        return "pruned"
    # Someone else may have told the job to stop: it saved and left without a result and without an error.
    return "stopped" if stopped or exit_code in (0, job.stop_code) else "failed"


def _await_earlier(job: Job, stop: Stopping, watch: Watch) -> Outcome | None:
    """Waits for a process that an earlier sweep has left behind at this job; None if there is something left to do."""
    started, lines = time.monotonic(), Lines(job.directory / OUTPUT)
    waited = False
    while (who := holder(job.directory)) is not None:
        if not waited:
            watch(f"{who} of an earlier call is still at work here")
        waited = True
        if stop.asked:
            return Outcome("stopped")
        lines.pass_on(watch)
        time.sleep(POLL_SECONDS)
    return Outcome("done", 0, time.monotonic() - started) if waited and job.is_finished else None


def _follow(process: subprocess.Popen[bytes], job: Job, stop: Stopping, look: Callable[[], None]) -> bool:
    """Waits for a process; True if it was told to stop."""
    told: float | None = None
    while process.poll() is None:
        look()
        if told is None and (stop.asked or job.is_pruned):
            told = time.monotonic()
            _signal(process, signal.SIGTERM)
        if told is not None and (stop.urgent or time.monotonic() - told > GRACE_SECONDS):
            _signal(process, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return told is not None


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Signals a process and all that it started, also after its own end; False if there is nothing left."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Waits for a process and all that it started."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and (process.poll() is None or _signal(process, 0)):
        time.sleep(POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leaves nothing of a process: what is still there a while after its end are ranks that nobody waits for."""
    if process.poll() is not None:
        _wait(process, STRAGGLE_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()


def _last_words(exit_code: int, text: str) -> str:
    """Why a process may have ended that could not write it down itself."""
    how = f"exit code {exit_code}"
    if exit_code < 0:
        how = f"ended by {signal.Signals(-exit_code).name}" + (" (out of memory?)" if exit_code == -9 else "")
    return "\n".join([f"{how}; the last lines of its output:", *text.splitlines()[-LAST_LINES:], ""])
