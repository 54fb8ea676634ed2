"""`vnncomp`: the answer and its counterexample as the competition reads them, whatever was asked and in time."""

import gzip
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from certify.undecided import undecided
from onnx_models import by_onnxruntime
from torch import Tensor, nn

import certtrain
from certtrain.certify.properties import Property, write_vnnlib
from certtrain.cli.commands.vnncomp import seconds_since_start, vnncomp_command
from certtrain.errors import CerttrainError, ConfigError
from certtrain.networks import to_onnx

SHAPE = (1, 2, 3)
VALUE = re.compile(r"\(([XY])_(\d+) ([^ ()]+)\)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three outputs on images, with a property that holds and one that does not."""
    where = tmp_path_factory.mktemp("vnncomp")
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)
    model = nn.Sequential(*layers).eval()
    to_onnx(model, SHAPE, where / "network.onnx")
    image = torch.rand(SHAPE)
    label = int(model(image[None]).argmax())
    write_vnnlib(Property.robust(image, label, 0.01, 3), where / "unsat.vnnlib")
    write_vnnlib(Property.robust(image, (label + 1) % 3, 0.1, 3), where / "sat.vnnlib")
    for name in ("network.onnx", "sat.vnnlib"):
        (where / f"{name}.gz").write_bytes(gzip.compress((where / name).read_bytes()))
    return where


def read(result: Path) -> tuple[str, Tensor, Tensor]:
    """First line, inputs and outputs."""
    first, _, rest = result.read_text().partition("\n")
    assert not rest or rest.strip().startswith("((X_0 ")
    assert not rest or rest.strip().endswith("))")
    found: dict[str, list[float]] = {"X": [], "Y": []}
    for kind, number, value in VALUE.findall(rest):
        assert int(number) == len(found[kind])
        found[kind].append(float(value))
    assert VALUE.sub("", rest).split() in ([], ["(", ")"], ["()"])
    return first, torch.tensor(found["X"]).double(), torch.tensor(found["Y"]).double()


@pytest.mark.parametrize(("network", "suffix"), [("network.onnx", ""), ("network.onnx.gz", ".gz")])
def test_a_counterexample(folder: Path, tmp_path: Path, network: str, suffix: str) -> None:
    result = tmp_path / "result.txt"
    vnncomp_command([str(folder / network), str(folder / f"sat.vnnlib{suffix}"), str(result), "100000"])
    status, x, y = read(result)
    assert (status, len(x), len(y)) == ("sat", 6, 3)
    assert certtrain.read_vnnlib(folder / "sat.vnnlib").violated(x, y)
    again = by_onnxruntime(folder / "network.onnx", x.float()[None], (1, *SHAPE))[0]
    assert torch.equal(again.double(), y), "not every digit is written"


def test_a_proof(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "result.txt"
    result.write_text("sat\n")
    vnncomp_command([str(folder / "network.onnx"), str(folder / "unsat.vnnlib"), str(result), "100000"])
    assert result.read_text() == "unsat\n"
    assert capsys.readouterr().out.startswith("unsat in ")


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "certtrain", "vnncomp", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_the_command(folder: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.txt"
    done = process(folder / "network.onnx", folder / "unsat.vnnlib", result, 120)
    assert (done.returncode, result.read_text(), done.stderr) == (0, "unsat\n", "")


def test_the_time_limit_covers_the_start(folder: Path, tmp_path: Path) -> None:
    """A property that takes longer; and a limit that the start uses up."""
    model, property = undecided()
    to_onnx(model, property.input_shape, tmp_path / "network.onnx")
    write_vnnlib(property, tmp_path / "property.vnnlib")
    for seconds in (0.5, 8.0):
        result, began = tmp_path / f"{seconds}.txt", time.perf_counter()
        done = process(tmp_path / "network.onnx", tmp_path / "property.vnnlib", result, seconds)
        taken = time.perf_counter() - began
        assert (done.returncode, result.read_text()) == (0, "timeout\n")
        if seconds > 1:
            assert taken < 1.1 * seconds + 1


@pytest.mark.parametrize(
    ("network", "property", "message"),
    [
        ("none.onnx", "sat.vnnlib", "none.onnx: cannot be read: No such file or directory"),
        ("network.onnx", "none.vnnlib", "none.vnnlib: cannot be read: No such file or directory"),
        ("sat.vnnlib", "sat.vnnlib", "sat.vnnlib: is no ONNX file"),
        ("network.onnx", "network.onnx", "network.onnx: is no text"),
        ("network.onnx", "short.vnnlib", "short.vnnlib: it declares 2 inputs"),
        ("network.onnx", "outputs.vnnlib", "the property is about 2 outputs, the network has 3"),
    ],
)
def test_files_that_do_not_fit(folder: Path, tmp_path: Path, network: str, property: str, message: str) -> None:
    write_vnnlib(Property.robust([0.5, 0.2], 0, 0.1, 3), folder / "short.vnnlib")
    write_vnnlib(Property.robust([0.5] * 6, 0, 0.1, 2), folder / "outputs.vnnlib")
    result = tmp_path / "result.txt"
    result.write_text("unsat\n")
    with pytest.raises(CerttrainError, match=re.escape(message)) as raised:
        vnncomp_command([str(folder / network), str(folder / property), str(result), "100000"])
    assert "\n" not in str(raised.value)
    assert result.read_text() == "unknown\n", "the answer of an earlier call is left"


def test_mistakes_end_with_one_line(folder: Path, tmp_path: Path) -> None:
    done = process(folder / "none.onnx", folder / "sat.vnnlib", tmp_path / "result.txt", 60)
    assert done.returncode == 2
    assert re.fullmatch(r"certtrain: error: .*none\.onnx: cannot be read: No such file or directory\n", done.stderr)
    for limit in ("0", "nan", "soon"):
        with pytest.raises(ConfigError, match="vnncomp"):
            vnncomp_command([str(folder / "network.onnx"), str(folder / "sat.vnnlib"), str(tmp_path / "r"), limit])


def test_an_error_is_no_answer(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: object, **named: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr("certtrain.cli.commands.vnncomp.decide", failing)
    result = tmp_path / "result.txt"
    with pytest.raises(MemoryError):
        vnncomp_command([str(folder / "network.onnx"), str(folder / "sat.vnnlib"), str(result), "100000"])
    assert result.read_text() == "unknown\n"


def test_a_contradiction_is_answered_at_once(folder: Path, tmp_path: Path) -> None:
    text = "".join(f"(declare-const X_{i} Real)\n(assert (>= X_{i} 0))\n(assert (<= X_{i} 1))\n" for i in range(6))
    text += "".join(f"(declare-const Y_{i} Real)\n" for i in range(3)) + "(assert (<= Y_0 1))\n(assert (>= Y_0 2))\n"
    (tmp_path / "property.vnnlib").write_text(text)
    shutil.copy(folder / "network.onnx", tmp_path)
    result = tmp_path / "result.txt"
    vnncomp_command([str(tmp_path / "network.onnx"), str(tmp_path / "property.vnnlib"), str(result), "100000"])
    assert result.read_text() == "unsat\n"


def test_the_clock_runs_from_the_start_of_the_process() -> None:
    code = (
        "import time; time.sleep(1.5)\nfrom certtrain.cli.commands.vnncomp import seconds_since_start\n"
        "print(seconds_since_start())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1.5 <= float(done.stdout) < 60
    assert 0 <= seconds_since_start() < 1e6


def test_what_the_command_does_not_need_is_not_imported() -> None:
    heavy = ["lightning", "hydra", "omegaconf", "matplotlib", "datasets", "pandas", "pyarrow", "sklearn"]
    code = f"import certtrain.cli.commands.vnncomp, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
