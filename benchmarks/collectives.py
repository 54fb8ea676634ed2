"""What it costs to exchange numbers between two processes of this machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore

from certtrain.cli.job import cluster
from certtrain.cli.job.supervisor import environment_of
from certtrain.cli.process.memory import keep_freed_memory

# Numbers of an all-reduce; the largest has the parameters of cnn7 on MNIST.
SIZES = (1_000, 24_330, 820_954, 13_257_290)
REPEATS = 15
BYTES = 4


def two_processes(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in two processes that have joined, one thread each; what it returns in the first one."""
    context = get_context("spawn")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    receiver, sender = context.Pipe(duplex=False)
    processes = [
        context.Process(target=_rank, args=(rank, store.port, sender, function, arguments)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        for process in processes:
            process.join()


def all_reduce_seconds() -> dict[int, float]:
    """Numbers -> seconds of an all-reduce between two processes, the median of several."""
    return two_processes(_all_reduces)


def fit(seconds: dict[int, float]) -> tuple[float, float]:
    """Latency in seconds and bytes per second that explain the times: the smallest size, and the slope to the largest.

    Two ranks send every number once in each direction.
    """
    least, most = min(seconds), max(seconds)
    rate = BYTES * (most - least) / max(seconds[most] - seconds[least], 1e-12)
    return seconds[least], rate


def _rank(rank: int, port: int, sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment_of(os.environ, rank, 2, port))
    torch.set_num_threads(1)
    keep_freed_memory()
    environment = cluster.detect()
    assert environment is not None
    cluster.join(environment)
    found = function(*arguments)
    if rank == 0:
        sender.send(found)
    dist.barrier()
    cluster.leave()


def _all_reduces() -> dict[int, float]:
    return {size: _median(partial(dist.all_reduce, torch.ones(size))) for size in SIZES}


def _median(call: Callable[[], Any]) -> float:
    taken = []
    for _ in range(REPEATS):
        dist.barrier()
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
