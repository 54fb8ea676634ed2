"""How long threads wait is settled before torch is loaded, in every process that computes.

GNU's OpenMP library itself says what it has read: OMP_DISPLAY_ENV makes it print its settings while it is loaded.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from certtrain.cli.process.waiting import SPINS, wait_briefly

QUICK = ["relaxation=ibp", "pgpe.population_size=4", "pgpe.strategy=loop", "certify.limit=1", "certify.attack.steps=1"]
TWO_RANKS = ["trainer=ddp", "trainer.devices=2", "trainer.max_steps=1", *QUICK]


def run(*arguments: str, cwd: Path, **own: str) -> subprocess.CompletedProcess[str]:
    """A Python process whose OpenMP library tells its settings, of which only the given ones are the user's."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    command = [sys.executable, *arguments]
    told = {**environment, "OMP_DISPLAY_ENV": "VERBOSE", **own}
    done = subprocess.run(command, cwd=cwd, env=told, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done


def spincounts(text: str) -> list[str]:
    return re.findall(r"GOMP_SPINCOUNT = '(\d+)'", text)


@pytest.fixture(scope="session")
def gnu_openmp(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not spincounts(run("-c", "import torch", cwd=tmp_path_factory.mktemp("torch")).stderr):
        pytest.skip("torch has another OpenMP library than GNU's here")


def test_who_has_said_how_threads_wait_is_obeyed() -> None:
    for own in ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": ""}):
        environment = dict(own)
        wait_briefly(environment)
        assert environment == own
    environment = {"OMP_NUM_THREADS": "2"}
    wait_briefly(environment)
    assert environment == {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": SPINS}


def test_the_command_line_is_loaded_without_torch(tmp_path: Path) -> None:
    """Otherwise what it sets would come too late."""
    run("-c", "import sys, certtrain.__main__; assert 'torch' not in sys.modules", cwd=tmp_path)


@pytest.mark.usefixtures("gnu_openmp")
@pytest.mark.parametrize(
    ("own", "expected"), [({}, SPINS), pytest.param({"GOMP_SPINCOUNT": "77"}, "77", marks=pytest.mark.slow)]
)
def test_ranks_wait_as_they_should(tmp_path: Path, own: dict[str, str], expected: str) -> None:
    done = run("-m", "certtrain", *TWO_RANKS, "hydra.run.dir=run", cwd=tmp_path, **own)
    # The supervisor and the first rank.
    assert len(spincounts(done.stderr)) >= 2
    assert set(spincounts(done.stderr)) == {expected}
    assert set(spincounts((tmp_path / "run" / "ranks" / "1.log").read_text())) == {expected}


@pytest.mark.slow
@pytest.mark.usefixtures("gnu_openmp")
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit hydra.launcher.cluster=local"])
def test_jobs_of_a_sweep_and_their_ranks_wait_as_they_should(tmp_path: Path, launcher: str) -> None:
    chosen = [f"hydra/launcher={launcher.split()[0]}", *launcher.split()[1:]]
    run("-m", "certtrain", "-m", "seed=0", *chosen, *TWO_RANKS, "hydra.sweep.dir=sweep", cwd=tmp_path)
    job = tmp_path / "sweep" / "0"
    assert set(spincounts((job / "output.log").read_text())) == {SPINS}
    assert set(spincounts((job / "ranks" / "1.log").read_text())) == {SPINS}


@pytest.mark.slow
@pytest.mark.usefixtures("gnu_openmp")
def test_processes_of_torchrun_wait_as_they_should(tmp_path: Path) -> None:
    """torchrun itself loads torch before anything of certtrain runs; it computes nothing."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--redirects=3", "--log-dir=logs"]
    run(*torchrun, "-m", "certtrain", *TWO_RANKS, cwd=tmp_path)
    logs = sorted((tmp_path / "logs").rglob("stderr.log"))
    assert len(logs) == 2
    for log in logs:
        assert set(spincounts(log.read_text())) == {SPINS}
