"""`landscape` and `analyze` on a run: files, numbers that fit together, a report, one line for a mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from certtrain.cli.commands.analyze import analyze_command
from certtrain.cli.commands.landscape import landscape_command
from certtrain.errors import CerttrainError, ConfigError
from certtrain.report import write_report

QUICK = ["method=grad", "relaxation=deeppoly", "trainer.max_steps=20", "certify.limit=4", "certify.attack.steps=2"]
SMALL = ["images=2", "relaxations=[ibp,deeppoly]", "sigmas=[0.02,0.1]"]
LANDSCAPE = [*SMALL, "pairs=2", "points=5", "plane_points=3", "plane_pairs=2"]
ANALYZE = [
    *SMALL,
    *("steps=5", "restarts=1", "segments=1", "intervals=16", "pairs=4", "replicates=3", "exact_seconds=0.001"),
    *("reference_pairs=4", "guess_samples=4", "population_size=4", "samples=2"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "certtrain", *QUICK, "hydra.run.dir=run"]
    done = subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_a_landscape_is_drawn_written_and_reported(run: Path, capsys: pytest.CaptureFixture) -> None:
    landscape_command([str(run), *LANDSCAPE])
    folder = run / "landscape"
    assert {path.name for path in folder.iterdir()} == {
        *("landscape.json", "lines.png", "lines.svg", "plane.png", "plane.svg")
    }
    record = json.loads((folder / "landscape.json").read_text())
    assert record["gradient_of"] == "deeppoly"
    assert [line["direction"] for line in record["lines"]] == ["gradient of deeppoly", "random (filter-normalised)"]
    for name in ("ibp", "deeppoly"):
        gradient, random = (line["losses"][name] for line in record["lines"])
        assert [curve["sigma"] for curve in gradient] == [0.0, 0.02, 0.1]
        # All lines and the plane meet at the weights.
        plane = record["plane"]["losses"][name]
        assert gradient[0]["mean"][2] == pytest.approx(random[0]["mean"][2])
        assert plane[0]["mean"][4] == pytest.approx(gradient[0]["mean"][2])
        assert gradient[1]["mean"][2] == pytest.approx(random[1]["mean"][2])
        assert not any(gradient[0]["error"])
        assert all(gradient[1]["error"])
    descent = record["lines"][0]["losses"]["deeppoly"][0]["mean"]
    assert descent[1] < descent[2] < descent[3]
    page = (run / "report.html").read_text()
    assert "Certified loss along two directions" in page
    assert "Certified loss on the plane of both" in page
    assert str(folder / "lines.png") in capsys.readouterr().out


def test_an_analysis_is_printed_drawn_written_and_reported(run: Path, capsys: pytest.CaptureFixture) -> None:
    analyze_command([str(run), *ANALYZE])
    folder = run / "analysis"
    assert {path.name for path in folder.iterdir()} == {"analysis.json", "analysis.png", "analysis.svg"}
    record = json.loads((folder / "analysis.json").read_text())
    gaps = record["tightness"]["gaps"]
    assert 0 <= gaps["deeppoly"]["gap_to_attack"] <= gaps["ibp"]["gap_to_attack"]
    assert gaps["ibp"]["gap_to_exact"] is None
    assert record["relaxation"]["ibp"]["continuity"]["count"] == 0
    assert [layer["neurons"] for layer in record["relaxation"]["deeppoly"]["layers"]] == [32, 32]
    assert set(record["relaxation"]["ibp"]["gradients"]["0.02"]["estimators"]) >= {"grad", "rgs", "pgpe"}
    out, page = capsys.readouterr().out, (run / "report.html").read_text()
    for title in ("Tightness", "Neurons", "Jumps of the certified loss", "Sensitivity", "Gradient estimators"):
        assert title in out
        assert f"<h2>{title}" in page
    assert max(map(len, out.partition("written:")[0].splitlines())) <= 80


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_run_option_counts(run: Path) -> None:
    def numbers(*more: str) -> dict:
        landscape_command([str(run), *LANDSCAPE, "relaxations=[ibp]", *more])
        return json.loads((run / "landscape" / "landscape.json").read_text())

    first = numbers()
    assert numbers() == first
    assert numbers("eps=0.1")["lines"][0]["losses"] != first["lines"][0]["losses"]
    assert numbers("split=test")["lines"][0]["losses"] != first["lines"][0]["losses"]
    assert numbers("seed=1")["lines"][1]["losses"] != first["lines"][1]["losses"]
    assert numbers("normalisation=layer")["lines"][1]["losses"] != first["lines"][1]["losses"]


def test_damaged_numbers_are_one_line(run: Path) -> None:
    (run / "analysis").mkdir()
    (run / "analysis" / "analysis.json").write_text("{")
    with pytest.raises(CerttrainError, match=r"analysis\.json is no JSON"):
        write_report(run)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (landscape_command, ["nowhere"], "nowhere is no run directory"),
        (landscape_command, ["RUN", "point=3"], "landscape: unknown key 'point'; did you mean points"),
        (
            landscape_command,
            ["RUN", "points"],
            "landscape: 'points' is no key=value; see python -m certtrain landscape --help",
        ),
        (landscape_command, ["RUN", "points=few"], "landscape: points must be a valid integer, got 'few'"),
        (landscape_command, ["RUN", "gradient_of=hbox", "relaxations=[ibp]"], "gradient_of=hbox must be one of"),
        (landscape_command, ["RUN", "relaxations=[ibq]"], "unknown relaxation 'ibq'"),
        (landscape_command, ["RUN", "checkpoint=no.ckpt"], r"no checkpoint at no\.ckpt"),
        (landscape_command, ["RUN", "device=abacus"], "device=abacus: "),
        (analyze_command, ["RUN", "replicates=2"], "analyze: replicates must be greater than or equal to 3, got 2"),
        (analyze_command, ["RUN", "samples=3"], "analyze: samples "),
        (analyze_command, ["RUN", "sigmas=[a,b]"], "analyze: sigmas.0 "),
        (analyze_command, ["RUN", "sigmas=[-1]"], "analyze: sigmas.0 "),
        (analyze_command, ["RUN", "relaxations=[ibp"], "analyze: "),
        (analyze_command, [], "analyze: the following arguments are required: run"),
    ],
)
def test_a_mistake_is_one_line(run: Path, tmp_path: Path, monkeypatch, command, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CerttrainError, match=message) as caught:
        command([str(run) if word == "RUN" else word for word in arguments])
    assert "\n" not in str(caught.value)
    assert not (run / "landscape").exists()
    assert not (run / "analysis").exists()


def test_help_names_every_key(capsys: pytest.CaptureFixture) -> None:
    for command, key in ((landscape_command, "plane_pairs=4"), (analyze_command, "reference_pairs=64")):
        with pytest.raises(SystemExit):
            command(["--help"])
        assert key in capsys.readouterr().out


def test_without_held_out_images_there_is_no_validation_split(run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("validation: 0.1", "validation: 0.0"))
    with pytest.raises(ConfigError, match="split=validation: the run holds out no image"):
        landscape_command([str(run), "split=validation"])
