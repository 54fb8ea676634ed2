"""Processes that are killed, stopped and interrupted, and the identical command that goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from wandb_files import OfflineRun

from certtrain.cli.rundir.directory import WATCHING

EVERY = 3
# Batches of 128: epochs of 10 generations.
TRAIN = [
    "relaxation=ibp",
    "pgpe.strategy=vmap",
    "pgpe.population_size=8",
    "data.batch_size=128",
    "trainer.log_every_n_steps=1",
    f"checkpoint.every_generations={EVERY}",
    "certify.verifiers=[ibp]",
    "certify.attack.steps=1",
    "certify.attack.restarts=1",
]


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "certtrain", *TRAIN, *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    output, errors = process.communicate(timeout=120)
    assert "Traceback" not in output + errors
    return output, errors


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def wait_for(process: subprocess.Popen[str], path: Path, count: int) -> None:
    """Until a file has so many lines."""
    for _ in range(6000):
        if lines(path) >= count or process.poll() is not None:
            return
        time.sleep(0.01)
    pytest.fail(f"{path} never had {count} lines")


def only_run(cwd: Path) -> Path:
    (run,) = cwd.glob("outputs/*/*")
    return run


def rows(run: Path) -> list[dict]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "members_per_second"} for row in found]


def record(run: Path) -> dict:
    """What does not depend on when, by which command and watched over how the run was begun, nor on its speed."""
    summary = json.loads((run / "summary.json").read_text())
    stages = [{k: v for k, v in stage.items() if k != "seconds"} for stage in summary["stages"]]
    config = {k: v for k, v in summary["config"].items() if k not in WATCHING}
    told = ("started", "command", "overrides", "continued")
    kept = {k: v for k, v in summary.items() if not k.endswith("_seconds") and k not in told}
    return {**kept, "stages": stages, "config": config}


def state(run: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]


def assert_same_run(one: Path, two: Path) -> None:
    assert rows(one) == rows(two)
    assert record(one) == record(two)
    for name in ("best.ckpt", "last.ckpt"):
        first, second = state(one, name), state(two, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert sorted(path.name for path in (two / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.slow
def test_killed_at_any_moment_it_loses_little_and_ends_the_same(tmp_path: Path) -> None:
    epochs, moments = "trainer.max_epochs=6", random.Random(0)
    whole = start(epochs, "hydra.run.dir=whole", cwd=tmp_path)
    finish(whole)
    assert whole.returncode == 0
    behind = 0
    for _ in range(5):
        process = start(epochs, cwd=tmp_path)
        runs = list(tmp_path.glob("outputs/*/*"))
        target = behind + moments.randint(2, 13)
        if runs:
            wait_for(process, runs[0] / "metrics.jsonl", target)
        else:
            while not (runs := list(tmp_path.glob("outputs/*/*/metrics.jsonl"))) and process.poll() is None:
                time.sleep(0.05)
            wait_for(process, runs[0], target)
        time.sleep(moments.random() * 0.05)
        process.kill()
        process.communicate(timeout=60)
        run = only_run(tmp_path)
        made = 1 + max((row["step"] for row in complete(run) if "train/loss" in row), default=-1)
        last = run / "checkpoints" / "last.ckpt"
        saved = torch.load(last, weights_only=True)["global_step"] if last.is_file() else 0
        assert made - saved <= EVERY
        behind = lines(run / "metrics.jsonl")
    output, _ = finish(start(epochs, cwd=tmp_path))
    assert "goes on from step" in output
    assert_same_run(tmp_path / "whole", only_run(tmp_path))


def complete(run: Path) -> list[dict]:
    text = (run / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@pytest.mark.slow
def test_a_signal_stops_it_with_its_state_saved_and_the_same_command_goes_on(tmp_path: Path) -> None:
    command = ("trainer.max_epochs=4", "preemption.signals=[SIGUSR1]", "preemption.exit_code=42", "logger=wandb")
    environment = {"WANDB_MODE": "offline"}
    process = start(*command, cwd=tmp_path, **environment)
    while not (found := list(tmp_path.glob("outputs/*/*/metrics.jsonl"))) and process.poll() is None:
        time.sleep(0.05)
    wait_for(process, found[0], 3)
    process.send_signal(signal.SIGUSR1)
    output, errors = finish(process)
    run = only_run(tmp_path)
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert process.returncode == 42, errors
    assert f"stopped at step {saved} by SIGUSR1: the same command, or resume={run}, goes on" in output.splitlines()
    assert [row["step"] for row in rows(run) if "train/loss" in row] == list(range(saved))
    identity = (run / "wandb_id.txt").read_text()
    resumed = start(*command, cwd=tmp_path, **environment)
    output, errors = finish(resumed)
    assert resumed.returncode == 0, errors
    assert f"goes on from step {saved} (" in output
    assert only_run(tmp_path) == run
    assert [row["step"] for row in rows(run) if "train/loss" in row] == list(range(40))
    assert (run / "wandb_id.txt").read_text() == identity
    views = [path.name for path in (run / "wandb").glob("offline-run-*") if path.is_dir()]
    assert {view.rsplit("-", 1)[1] for view in views} == {identity.strip()}
    # An offline run cannot go on where another one has ended: the later one holds all of it.
    shown = OfflineRun(run / "wandb" / max(views))
    assert [row["step"] for row in shown.rows] == list(range(40))
    whole = start("trainer.max_epochs=4", "hydra.run.dir=whole", cwd=tmp_path)
    finish(whole)
    assert_same_run(tmp_path / "whole", run)


def test_certification_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopped between two images: the finished ones are not judged again, and nothing is trained."""
    command = ("trainer.max_steps=2", "certify.verifiers=[zonotope]", "certify.attack.steps=400", "hydra.run.dir=run")
    process = start(*command, cwd=tmp_path)
    ledger = tmp_path / "run" / "ledger.jsonl"
    wait_for(process, ledger, 1)
    process.send_signal(signal.SIGTERM)
    output, errors = finish(process)
    assert process.returncode == 75, errors
    assert "stopped by SIGTERM: the same command" in output
    before = ledger.read_text()
    assert 0 < before.count("\n") < 360
    resumed = start(*command, cwd=tmp_path)
    output, errors = finish(resumed)
    assert resumed.returncode == 0, errors
    assert "goes on from step 2" in output
    after = ledger.read_text()
    assert after.startswith(before[: before.rfind("\n") + 1])
    assert sorted(json.loads(line)["index"] for line in after.splitlines()) == list(range(360))
    assert len([row for row in rows(tmp_path / "run") if "val/loss" in row]) == 1
