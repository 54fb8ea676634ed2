"""Jobs as processes: what becomes of them, what they leave, and what they inherit. The jobs are small scripts."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from certtrain.errors import ConfigError
from certtrain.sweep import environment, process, record
from certtrain.sweep.basic import Basic
from certtrain.sweep.gpus import VISIBLE, Gpus, visible_gpus
from certtrain.sweep.jobs import Job, Outcome
from certtrain.sweep.launcher import quoted
from certtrain.sweep.parallel import Joblib
from certtrain.sweep.runner import Runner
from certtrain.sweep.slurm import Submitit
from certtrain.sweep.stop import Stop
from certtrain.sweep.sweep import Sweep, SweepFailed

SUCCEED = "open('summary.json', 'w').write('{\"certified_accuracy\": 0.5}'); open('report.html', 'w')"
FAIL = "print('before'); raise ValueError('planted')"
ONE = {"nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1}
SLURM = {"cluster": "local", "timeout_min": 2, "gpus_per_node": 0, "mem_gb": None, **ONE}
RUNNERS = [Basic(), Joblib(2), Submitit(n_jobs=2, slurm=None, **SLURM)]


def job(number: int, folder: Path, script: str) -> Job:
    directory = folder / str(number)
    directory.mkdir(parents=True, exist_ok=True)
    return Job(number, (f"seed={number}",), directory, (sys.executable, "-c", script), directory)


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def statuses(folder: Path) -> list[str]:
    return [row["status"] for row in json.loads((folder / "sweep.json").read_text())["jobs"]]


@pytest.mark.parametrize("runner", RUNNERS, ids=lambda runner: type(runner).__name__)
def test_a_failing_job_stops_no_other_and_leaves_its_traceback(tmp_path: Path, runner: Runner) -> None:
    jobs = [job(0, tmp_path, SUCCEED), job(1, tmp_path, FAIL), job(2, tmp_path, SUCCEED)]
    console = Console(record=True, width=140, file=io.StringIO())
    sweep = Sweep(console)
    waiting = sweep.plan(tmp_path, jobs, fail_fast=False)
    with sweep.running(runner.side_by_side):
        runner.run(waiting, sweep)
    assert statuses(tmp_path) == ["done", "failed", "done"]
    assert "ValueError: planted" in (tmp_path / "1" / "traceback.txt").read_text()
    assert "before" in (tmp_path / "1" / "output.log").read_text()
    with pytest.raises(SweepFailed, match="1 of 3 jobs failed"):
        sweep.conclude()
    shown = console.export_text()
    assert all(word in shown for word in ("seed=1", "failed", "50.00", "traceback.txt"))
    assert [row["certified_accuracy"] for row in record.read(tmp_path)] == [0.5, None, 0.5]


def test_fail_fast_stops_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    jobs = [job(0, tmp_path, "import time; time.sleep(60)"), job(1, tmp_path, FAIL), job(2, tmp_path, SUCCEED)]
    sweep = Sweep(Console(quiet=True))
    runner = Joblib(2)
    waiting = sweep.plan(tmp_path, jobs, fail_fast=True)
    with sweep.running(runner.side_by_side):
        runner.run(waiting, sweep)
    assert statuses(tmp_path) == ["stopped", "failed", "not run"]
    with pytest.raises(SweepFailed, match="1 of 3 jobs failed, 2 stopped or not run"):
        sweep.conclude()


def test_the_same_sweep_again_runs_what_has_no_result(tmp_path: Path) -> None:
    def again() -> None:
        sweep = Sweep(Console(quiet=True))
        waiting = sweep.plan(tmp_path, jobs, fail_fast=False)
        with sweep.running(False):
            Basic().run(waiting, sweep)

    jobs = [job(0, tmp_path, SUCCEED), job(1, tmp_path, FAIL)]
    again()
    written = (tmp_path / "0" / "summary.json").stat().st_mtime_ns
    jobs[1] = job(1, tmp_path, SUCCEED)
    again()
    assert statuses(tmp_path) == ["done before", "done"]
    assert (tmp_path / "0" / "summary.json").stat().st_mtime_ns == written
    assert not (tmp_path / "1" / "traceback.txt").exists()


def test_a_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    record.check_continues(tmp_path / "new", [["seed=0"]])
    record.write(tmp_path, [job(0, tmp_path, SUCCEED)], {0: Outcome("done")})
    record.check_continues(tmp_path, [["seed=0"], ["seed=1"]])
    with pytest.raises(ConfigError, match=r"holds another sweep \(its job 0 is seed=0\)"):
        record.check_continues(tmp_path, [["seed=7"]])
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(ConfigError, match="no record of a sweep"):
        record.check_continues(tmp_path, [["seed=0"]])
    (tmp_path / "sweep.json").unlink()
    with pytest.raises(ConfigError, match="holds no sweep"):
        record.check_continues(tmp_path, [["seed=0"]])


def test_a_stopped_job_may_save_and_its_ranks_end_with_it(tmp_path: Path) -> None:
    script = """
import signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(99)"
child = subprocess.Popen([sys.executable, "-c", deaf])
def save(*_):
    open("saved", "w").write(str(child.pid))
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
open("ready", "w")
time.sleep(99)
"""
    stop, outcomes = Stop(), list[Outcome]()
    found = job(0, tmp_path, script)
    process.STRAGGLE_SECONDS, before = 0.5, process.STRAGGLE_SECONDS
    try:
        thread = threading.Thread(target=lambda: outcomes.append(process.run(found, os.environ, stop, print)))
        thread.start()
        wait_for((tmp_path / "0" / "ready").exists)
        stop.ask()
        thread.join(30)
    finally:
        process.STRAGGLE_SECONDS = before
    assert [outcome.status for outcome in outcomes] == ["stopped"]
    pid = int((tmp_path / "0" / "saved").read_text())
    wait_for(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_signals_ask_to_stop_and_are_given_back() -> None:
    stop, before = Stop(), signal.getsignal(signal.SIGTERM)
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.asked, stop.urgent, stop.signal) == (True, False, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.urgent
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_killed_job_is_told_with_its_last_lines(tmp_path: Path) -> None:
    found = job(0, tmp_path, "import os; print('almost there', flush=True); os.kill(os.getpid(), 9)")
    outcome = process.run(found, os.environ, Stop(), print)
    assert (outcome.status, outcome.exit_code) == ("failed", -signal.SIGKILL)
    text = (tmp_path / "0" / "traceback.txt").read_text()
    assert "SIGKILL" in text
    assert "almost there" in text


def test_a_job_inherits_no_place_among_ranks() -> None:
    kept = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "SLURM_JOB_ID": "7", "MASTERY": "yes"}
    ranks = [
        "LOCAL_RANK",
        "RANK",
        "NODE_RANK",
        "GROUP_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    ]
    others = ["PL_GLOBAL_SEED", "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID", "WANDB_RUN_ID"]
    assert environment.cleaned(kept | dict.fromkeys(ranks + others, "1")) == kept


def test_jobs_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 16)
    assert environment.for_job({}, 4, 2)["OMP_NUM_THREADS"] == "2"
    assert environment.for_job({}, 40)["OMP_NUM_THREADS"] == "1"
    assert environment.for_job({"OMP_NUM_THREADS": "5"}, 4)["OMP_NUM_THREADS"] == "5"
    assert "OMP_NUM_THREADS" not in environment.for_job({})


def test_jobs_side_by_side_have_gpus_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that pretends to have three; the last job computes on the CPU and sees what the sweep sees."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-a,7,9")
    assert visible_gpus(os.environ) == ("4", "GPU-a", "7"), "torch sees no fourth one"
    assert visible_gpus({}) == ("0", "1", "2")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    script = "import os, time; open('gpu', 'w').write(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(1);" + SUCCEED
    jobs = [replace(job(i, tmp_path, script), gpus=min(1, 3 - i)) for i in range(4)]
    sweep = Sweep(Console(file=io.StringIO()))
    waiting = sweep.plan(tmp_path, jobs, False)
    with sweep.running(side_by_side=True):
        Joblib(4).run(waiting, sweep)
    found = [(tmp_path / str(i) / "gpu").read_text() for i in range(4)]
    assert sorted(found[:3]) == ["4", "7", "GPU-a"]
    assert found[3] == "4,GPU-a,7,9"


def test_more_jobs_than_gpus_share_the_least_busy_ones() -> None:
    gpus = Gpus("012")
    with gpus.taken(2) as first, gpus.taken(1) as second:
        assert (first, second) == ({VISIBLE: "0,1"}, {VISIBLE: "2"})
        with gpus.taken(1) as third, gpus.taken(1) as fourth:
            assert (third, fourth) == ({VISIBLE: "0"}, {VISIBLE: "1"})
    with gpus.taken(1) as again, gpus.taken(0) as none, gpus.taken(3) as every:
        assert (again, none, every) == ({VISIBLE: "0"}, {}, {})


def test_values_survive_the_grammar_of_overrides() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for value in ("/a b/seed=1,eps=0.1", "it's", "x\\y", "back\\'slash", "end\\", "{a:[1]}"):
        (override,) = OverridesParser.create().parse_overrides([f"hydra.run.dir={quoted(value)}"])
        assert override.value() == value


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Joblib(0), "n_jobs"),
        (lambda: Joblib("two"), "n_jobs"),
        (lambda: Submitit(n_jobs=0, slurm={}, **SLURM), "n_jobs"),
        (lambda: Submitit(n_jobs=1, slurm={}, **{**SLURM, "cluster": "moon"}), "cluster"),
        (lambda: Submitit(n_jobs=1, slurm={"colour": "red"}, **SLURM), "colour"),
    ],
)
def test_options_are_refused_in_one_line(build: Callable[[], Runner], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_a_job_that_a_killed_sweep_has_left_behind_is_waited_for(tmp_path: Path) -> None:
    """Its process lives on; a second one in its directory would be refused."""
    left = f"""
import time
from pathlib import Path
from certtrain.lock import locked
with locked(Path({str(tmp_path / "0")!r})):
    open("ready", "w")
    time.sleep(1.0)
    {SUCCEED}
"""
    old = job(0, tmp_path, left)
    behind = subprocess.Popen(old.command, cwd=old.directory)
    wait_for((tmp_path / "0" / "ready").exists)
    said = list[str]()
    outcome = process.run(job(0, tmp_path, FAIL), os.environ, Stop(), said.append)
    assert (outcome.status, outcome.exit_code) == ("done", 0)
    assert said[0].startswith(f"process {behind.pid} on ")
    behind.wait()
