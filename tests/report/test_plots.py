"""The training record and its plots: any subset of quantities, margins of any size."""

import json
from pathlib import Path

import pytest
from report.fakes import PNG, verdict

from certtrain.errors import DataError
from certtrain.report import write_curves, write_margins
from certtrain.report.metrics import read_metrics, running_mean
from certtrain.report.style import drawing, figure


def test_metrics_are_read_as_columns(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    lines = [
        '{"step": 1, "a": 1.0}',
        '{"step": 3, "a": null, "b": 2}',
        '{"step": 1, "a": 5.0}',
        '{"step": 4, "a"',
    ]
    path.write_text("\n".join(lines))
    found = read_metrics(path)
    assert found["a"].steps == (1.0, 3.0)
    assert found["a"].values[0] == 5.0
    assert found["a"].values[1] != found["a"].values[1]
    assert found["b"].values == (2.0,)
    assert read_metrics(tmp_path / "missing.jsonl") == {}


@pytest.mark.parametrize("line", ["{", "[1]", '{"a": 1}'])
def test_damaged_metrics_are_told(tmp_path: Path, line: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(DataError, match="line 2"):
        read_metrics(path)


def test_running_mean_leaves_gaps_out():
    assert running_mean([1.0, float("nan"), 3.0, 5.0], 3) == [1.0, 2.0, 4.0, 4.0]


@pytest.mark.parametrize("steps", [1, 400])
def test_curves_of_any_subset_of_quantities(tmp_path: Path, steps: int):
    metrics = tmp_path / "metrics.jsonl"
    rows = [
        {"step": s, "train/loss": 1e3 / (s + 1), "lr": 0.0, "population/std": None, "unknown": 1.0}
        for s in range(steps)
    ]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    png = write_curves(metrics, tmp_path / "curves.png", "title")
    assert png is not None
    assert png.read_bytes().startswith(PNG)


def test_no_curves_without_quantities(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": null}\n')
    assert write_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "title") is None
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    "margins", [[0.5, -0.2], [0.5, -1e9], [0.5], [-0.5], [-1e9, -1.0], [0.0], [0.0, 1e-300], [1e30, -1e-30]]
)
def test_margins_of_any_size(tmp_path: Path, margins: list[float]):
    verdicts = [verdict(i, "unknown", m, None) for i, m in enumerate(margins)]
    png = write_margins(verdicts, tmp_path / "margins.png", "title")
    assert png is not None
    assert png.read_bytes().startswith(PNG)


def test_no_margins_without_verifiers(tmp_path: Path):
    assert write_margins([verdict(0, "misclassified")], tmp_path / "margins.png", "title") is None


@pytest.mark.parametrize("width", [2.0, 3.7, 7.4])
def test_long_titles_are_broken_into_lines(width: float):
    title = "trained with deeppoly (auto_lirpa, lower_slope=zero, intersect=false), pgpe, eps 0.0313725"
    with drawing():
        canvas, _ = figure(1, 1, title, (width, 2.0))
        canvas.canvas.draw()
        shown = canvas._suptitle.get_window_extent()
    assert canvas._suptitle.get_text().split() == title.split()
    assert shown.x1 <= canvas.bbox.x1
