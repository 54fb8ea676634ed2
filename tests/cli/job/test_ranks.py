"""Commands that train on several processes: one directory, one voice, and an end for all when one ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

QUICK = ["relaxation=ibp", "pgpe.population_size=4", "pgpe.strategy=loop", "certify.limit=4", "certify.attack.steps=2"]
ENDLESS = ["trainer=ddp", "method=grad", "relaxation=ibp", "trainer.max_epochs=100000", "hydra.run.dir=run"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "certtrain", *arguments]


def run(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def start(cwd: Path) -> subprocess.Popen[str]:
    """An endless run on two ranks that has written its first checkpoint."""
    process = subprocess.Popen(command(*ENDLESS), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = cwd / "run" / "checkpoints" / "last.ckpt"
    for _ in range(900):
        if checkpoint.is_file() or process.poll() is not None:
            break
        time.sleep(0.1)
    return process


def ranks_of(directory: Path) -> dict[int, int]:
    """Rank -> process of the ranks that work in a run directory."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            environment = dict(
                pair.split(b"=", 1) for pair in (entry / "environ").read_bytes().split(b"\0") if b"=" in pair
            )
        except OSError:
            continue
        if b"certtrain.cli.job.rank" in words and str(directory).encode() in words:
            found[int(environment[b"RANK"])] = int(entry.name)
    return found


def test_a_run_on_two_ranks_leaves_what_a_run_of_one_leaves(tmp_path: Path) -> None:
    done = run(command("trainer=ddp", "trainer.max_steps=3", *QUICK), tmp_path)
    assert done.returncode == 0, done.stderr
    (directory,) = tmp_path.glob("outputs/*/*")
    assert done.stdout.count(f"\n{directory}\n") == 1, "one rank speaks for all"
    assert done.stdout.count("2 ranks, ") == 1
    assert "certified by any (union)" in done.stdout
    assert "error" not in done.stderr
    assert not (directory / "ranks").exists(), "the other rank had nothing to say"
    assert json.loads((directory / "summary.json").read_text())["certified_accuracy"] is not None
    assert len((directory / "ledger.jsonl").read_text().splitlines()) == 4
    assert torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3


@pytest.mark.slow
def test_torchrun_starts_one_run(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "certtrain"]
    done = run([*torchrun, "trainer=ddp", "trainer.max_steps=3", *QUICK], tmp_path)
    assert done.returncode == 0, done.stderr
    (directory,) = tmp_path.glob("outputs/*/*")
    assert done.stdout.count(f"\n{directory}\n") == 1, "one rank speaks for all"
    assert (directory / "summary.json").is_file()
    refused = run([*torchrun, "trainer=ddp", "trainer.devices=1", "hydra.run.dir=other", *QUICK], tmp_path)
    assert refused.returncode != 0
    assert refused.stderr.count("certtrain: error: 2 processes were started for trainer.devices=1") == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_one_line(tmp_path: Path) -> None:
    bad = ["optimizer.lr=1e30", "optimizer.clip_norm=null", "schedule.eps.warmup=0", "schedule.eps.ramp=0"]
    done = run(command("trainer=ddp", "method=grad", "relaxation=ibp", "hydra.run.dir=run", *bad), tmp_path)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("certtrain: error:")]
    assert "lower optimizer.lr" in line
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_a_rank_that_is_killed_ends_the_run(tmp_path: Path) -> None:
    process = start(tmp_path)
    os.kill(ranks_of(tmp_path / "run")[1], signal.SIGKILL)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 60
    assert process.returncode == 2
    assert "certtrain: error: rank 1 was killed by SIGKILL; the other ranks were stopped" in errors
    assert "Traceback" not in errors
    assert ranks_of(tmp_path / "run") == {}
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] > 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.slow
def test_a_signal_to_one_rank_stops_all_with_their_state_saved(tmp_path: Path) -> None:
    process = start(tmp_path)
    os.kill(ranks_of(tmp_path / "run")[1], signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    step = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert f"stopped at step {step} by SIGTERM: the same command, or resume=" in output
    assert errors.strip() == ""
    assert not (tmp_path / "run" / "run.lock").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_ranks_end_with_their_supervisor(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert sorted(ranks_of(tmp_path / "run")) == [0, 1]
    process.kill()
    process.communicate(timeout=60)
    for _ in range(100):
        if not ranks_of(tmp_path / "run"):
            break
        time.sleep(0.1)
    assert ranks_of(tmp_path / "run") == {}


@pytest.mark.slow
def test_an_interrupt_reaches_every_rank(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    *before, last = errors.strip().splitlines()
    assert last == "certtrain: interrupted"
    assert all(line.startswith("certtrain: SIGINT: stops at the end of this generation") for line in before)
    assert output.count("stopped at step") == 1
