"""Jobs are measured beside a second one, which never outlives the measurement; how fast they are is not tested."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import lirpa_cases
import pytest

from benchmarks.cases import Bench
from benchmarks.neighbours import CERTTRAIN, DEFAULT, Manner, process_of, second_job
from benchmarks.settings import NO_DATA, Settings
from certtrain.cli.process.waiting import SETTINGS, SPINS
from certtrain.errors import CerttrainError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Of random images, whose file is written."""
    made = Bench(Settings(("neighbours",), True, NO_DATA, tmp_path, None, False), say=lambda text: None)
    assert made.images
    return made


@pytest.mark.slow
@lirpa_cases.needs_auto_lirpa  # whose version stands in every header
def test_the_section_writes_and_shows_what_it_found(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only=neighbours", "--data=none", "--threads=2"]
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [*command, f"--out={tmp_path}"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"freed memory is given back; how threads wait: GOMP_SPINCOUNT={SPINS}" in done.stdout
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["machine"]["waiting"] == f"GOMP_SPINCOUNT={SPINS}"
    rows = content["tables"]["neighbours"]
    assert [(row["threads"], row["waiting"]) for row in rows] == [(2, DEFAULT), (2, CERTTRAIN)]
    for row in rows:
        assert row["job"] == "cnn3, 2: deeppoly with gradients"
        assert all(row[name][0] > 0 for name in ("alone_one", "alone_all", "beside_one", "beside_all"))
        assert row["ratio"] == max(row["beside_all"]) / statistics.median(row["beside_one"])


def test_a_process_waits_as_its_row_says_whatever_the_user_has_set(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    for waiting, expected in ((DEFAULT, {}), (CERTTRAIN, {"GOMP_SPINCOUNT": SPINS})):
        _, environment = process_of(bench, bench.plan.neighbours.second, Manner(2, waiting))
        assert {name: environment[name] for name in SETTINGS if name in environment} == expected


def test_an_interruption_ends_the_second_job(bench: Bench) -> None:
    started = []

    def interrupted() -> None:
        with second_job(bench) as process:
            started.append(process)
            assert process.poll() is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert started[0].returncode is not None


def test_the_second_job_ends_with_its_input_and_nothing_counts_without_it(bench: Bench) -> None:
    """Its input ends when the process that has started it is killed."""

    def abandoned() -> None:
        with second_job(bench) as process:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0

    with pytest.raises(CerttrainError, match="mlp on digits, 8: deeppoly of 4 members: its process ended: exit code 0"):
        abandoned()
