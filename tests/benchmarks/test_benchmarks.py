"""The command that measures speed works; how fast anything is depends on the machine and is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import lirpa_cases
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = lirpa_cases.needs_auto_lirpa


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False)


def test_tables_json_and_picture(tmp_path: Path) -> None:
    done = benchmarks("--quick", "--only=bounds,peak,losses", "--data=none", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["machine"]["auto_lirpa"] in done.stdout
    assert content["settings"]["freed_memory_is_kept"] is False
    tables = content["tables"]
    assert set(tables) == {"bounds", "rates", "operations", "losses"}
    for row in tables["bounds"]:
        ratio = row["times"]["ratio"]
        assert 0 < ratio["lower_quartile"] <= ratio["median"] <= ratio["upper_quartile"]
        assert row["difference"] is None or row["difference"] < lirpa_cases.FLOAT32
    assert {row["method"] for row in tables["bounds"] if row["difference"] is not None} == {
        "ibp",
        "crown_ibp",
        "deeppoly_textbook",
    }
    # Both compute the same losses, at the same attacked points.
    assert {row["loss"] for row in tables["losses"]} >= {"robust_ce", "crown_ibp", "sabr", "taps", "staps", "mtl_ibp"}
    assert all(row["difference"] < lirpa_cases.FLOAT32 for row in tables["losses"])
    # Textbook deeppoly multiplies more than one back-substitution of the margins, and that more than intervals.
    gflop = {row["method"]: row["gflop"] for row in tables["operations"]}
    assert gflop["deeppoly_textbook"] >= gflop["deeppoly"] > gflop["crown_ibp"] > gflop["ibp"] > 0
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only=bounds,speed"], "argument --only: 'speed' is none of bounds, batches, population"),
        (["--threads=none"], "argument --threads: must be a number of threads, got 'none'"),
        (["--search-seconds=nan"], "argument --search-seconds: must be a positive number of seconds, got 'nan'"),
        (
            ["--quick", "--data=none", "--only=certify", "--search-networks=mnist_256x3"],
            "unknown network 'mnist_256x3'",
        ),
        (["--quick", "--only=bounds", "--data=/nowhere"], "'/nowhere' is no folder"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    done = benchmarks(*arguments, f"--out={tmp_path}")
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
