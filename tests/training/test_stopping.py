"""Signals: noted while generations run, at once otherwise, agreed upon among ranks."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from certtrain.training.stopping import Stopped, StopRequest, signal_numbers
from certtrain.training.survival import Survival

CPU = torch.device("cpu")


def test_the_first_signal_is_noted_and_the_second_one_counts_at_once() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with StopRequest([signal.SIGUSR1]).listening() as request:
        request.wait()
        assert request.agreed(CPU) == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert request.agreed(CPU) == signal.SIGUSR1
        with pytest.raises(Stopped, match="^stopped by SIGUSR1$") as stopped:
            os.kill(os.getpid(), signal.SIGUSR1)
        assert stopped.value.step is None
    assert signal.getsignal(signal.SIGUSR1) is before


def test_outside_of_training_a_signal_counts_at_once() -> None:
    with StopRequest([signal.SIGTERM]).listening() as request:
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        request.wait()
        request.stop_waiting()
        with pytest.raises(Stopped, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert request.agreed(CPU) == 0


def test_handlers_that_another_library_has_put_in_place_are_replaced() -> None:
    with StopRequest([signal.SIGUSR1]).listening() as request:
        signal.signal(signal.SIGUSR1, lambda number, frame: pytest.fail("the other handler was called"))
        request.wait()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert request.agreed(CPU) == signal.SIGUSR1


def test_a_validation_by_itself_is_ended_at_once(tmp_path: Path) -> None:
    """Lightning begins it with handlers of its own, which wait for the other ranks."""
    with StopRequest([signal.SIGUSR1]).listening() as request:
        signal.signal(signal.SIGUSR1, lambda number, frame: pytest.fail("the other handler was called"))
        Survival(tmp_path, 1, request).on_validation_start(pl.Trainer(logger=False), pl.LightningModule())
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGUSR1)


def test_a_signal_that_is_noted_is_answered() -> None:
    said: list[str] = []
    with StopRequest([signal.SIGUSR1], said.append).listening() as request:
        request.wait()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert said == ["SIGUSR1: stops at the end of this generation; a second signal stops at once"]
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGUSR1)
    assert len(said) == 1


def test_other_threads_do_without() -> None:
    """As under a launcher that runs jobs in threads: only the main one can have handlers."""
    asked: list[int] = []

    def work() -> None:
        with StopRequest([signal.SIGUSR1]).listening() as request:
            request.wait()
            asked.append(request.agreed(CPU))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [0]


def test_names() -> None:
    assert signal_numbers(["SIGTERM", "SIGOTHER"]) == (signal.SIGINT, signal.SIGTERM)
    assert str(Stopped(signal.SIGTERM, 12)) == "stopped at step 12 by SIGTERM"


RANK = """
import os, signal, sys
import torch.distributed as dist, torch
from certtrain.training.stopping import StopRequest
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
with StopRequest([signal.SIGTERM]).listening() as request:
    request.wait()
    for generation in range(5):
        if generation == 3 and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        number = request.agreed(torch.device("cpu"))
        if number:
            print(generation, number)
            break
dist.destroy_process_group()
"""


def test_a_signal_to_one_of_two_ranks_stops_both_after_the_same_generation(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=60)[0] for rank in ranks]
    assert outputs == [f"3 {int(signal.SIGTERM)}\n"] * 2
