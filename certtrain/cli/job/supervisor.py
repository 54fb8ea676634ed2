"""Starts the ranks of a run on this machine and looks after them.

Each rank is a fresh process with an environment like torchrun's, in a session of its own: a terminal's Ctrl-C reaches
the supervisor alone, which passes signals on to every rank once. A rank that fails ends the run within seconds; ranks
whose supervisor is gone end by themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch.distributed import TCPStore

from certtrain.errors import CerttrainError

# Exit codes of a rank that could not go on; others than these and 0 are deliberate.
BUG, REFUSED, LOST = 1, 2, 3
FORWARDED = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
# Left behind by whoever started this process; a rank must not take them for its own.
_FOREIGN = ("TORCHELASTIC_", "ROLE_", "PL_")
_FOREIGN_NAMES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
POLL_S = 0.05
# For the other ranks to say why, after the first one has failed; then to end on request.
GRACE_S = 3.0
END_S = 5.0
# For the others to stop as one has, deliberately.
STOP_S = 60.0


class RankFailed(CerttrainError):
    """A rank ended before the run was finished; the others were stopped."""


def run_ranks(directory: Path, count: int, signals: Iterable[int]) -> None:
    """Runs what `config.yaml` in a run directory describes on several ranks; returns when all are done.

    Args:
        directory: The run directory. `ranks/<rank>.log` receives what ranks other than the first write.
        count: Ranks.
        signals: What the ranks listen to, and are passed on.

    Raises:
        RankFailed: If a rank failed; one line about the first cause.
        KeyboardInterrupt: If the ranks were interrupted.
        SystemExit: If the ranks stopped deliberately, with their exit code.
    """
    logs = directory / "ranks"
    logs.mkdir(exist_ok=True)
    # It holds the port that the ranks meet at from before they start: no other program can take it in between.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with ExitStack() as stack:
        ranks = [stack.enter_context(_rank(directory, logs, rank, count, store.port)) for rank in range(count)]
        stack.enter_context(_forwarding(ranks, {*FORWARDED, *signals}))
        codes = _watch(ranks)
    _conclude(codes, logs)


@contextmanager
def _rank(directory: Path, logs: Path, rank: int, count: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """One rank's process; not running any more afterwards."""
    command = [sys.executable, "-m", "certtrain.cli.job.rank", str(directory)]
    environment = environment_of(os.environ, rank, count, port)
    with (logs / f"{rank}.log").open("ab") as log:
        # The first rank speaks for all.
        output = log if rank else None
        # A pipe that closes tells a rank that its supervisor is gone.
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def environment_of(own: Mapping[str, str], rank: int, count: int, port: int) -> dict[str, str]:
    """A rank's environment: this process's without what belongs to another launch, and the rank's place."""
    kept = {k: v for k, v in own.items() if not k.startswith(_FOREIGN) and k not in _FOREIGN_NAMES}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kept.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    return {
        **kept,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # As under torchrun: the store is there already, no rank opens one.
        "TORCHELASTIC_RUN_ID": "certtrain",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


@contextmanager
def _forwarding(ranks: Sequence[subprocess.Popen[bytes]], signals: Iterable[int]) -> Iterator[None]:
    """Passes signals on instead of obeying them: the ranks decide how to end, and this process ends after them."""

    def forward(number: int, _: object) -> None:
        for process in ranks:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(ranks: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Waits until all ranks have ended, or one has and the others had their time: None for those still running."""
    deadline = float("inf")
    while True:
        codes = [process.poll() for process in ranks]
        if None not in codes or time.monotonic() > deadline:
            return codes
        if any(code for code in codes):
            failed = any(code is not None and _is_failure(code) for code in codes)
            deadline = min(deadline, time.monotonic() + (GRACE_S if failed else STOP_S))
        time.sleep(POLL_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _is_failure(code: int) -> bool:
    return code < 0 or code in (BUG, REFUSED, LOST)


def _conclude(codes: Sequence[int | None], logs: Path) -> None:
    """Raises what the exit codes mean; logs that say nothing are removed."""
    messages = [_take(logs / f"{rank}.error") for rank in range(len(codes))]
    failures = [(rank, code) for rank, code in enumerate(codes) if code is not None and _is_failure(code)]
    stopped = [code for code in codes if code is not None and code != 0 and not _is_failure(code)]
    for path in logs.glob("*.log"):
        if path.stat().st_size == 0:
            path.unlink()
    if not any(logs.iterdir()):
        logs.rmdir()
    if stopped:
        # A rank that is waiting for one that has stopped on request can only lose it.
        if stopped[0] == 130:
            raise KeyboardInterrupt
        raise SystemExit(stopped[0])
    if failures:
        # The cause is the rank that did not merely lose another.
        rank, code = min(failures, key=lambda failure: (failure[1] == LOST, failure[1] == BUG, failure[0]))
        raise RankFailed(_describe(rank, code, messages[rank], logs))


def _describe(rank: int, code: int, message: str, logs: Path) -> str:
    if code < 0:
        return f"rank {rank} was killed by {signal.Signals(-code).name}; the other ranks were stopped"
    if message:
        return message
    log = logs / f"{rank}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    reason = f" ({lines[-1].strip()}): see {log}" if lines else ": see above"
    return f"rank {rank} failed{reason}; the other ranks were stopped"


def _take(path: Path) -> str:
    """The content of a file, which is removed; nothing if there is none."""
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8").strip()
    path.unlink()
    return text
