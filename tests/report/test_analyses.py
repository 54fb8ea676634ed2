"""Analyses of many runs in one table and one figure."""

import csv
import json
from pathlib import Path

import pytest
from report.runs import run

from certtrain.cli.commands.collect import collect_command
from certtrain.errors import DataError
from certtrain.report.analyses import BIASED, COLUMNS, draw_analyses, read_analyses, table_rows, write_analyses


def quality(bias: float | None, noise: float | None = 2.5) -> dict:
    ends = (None, None) if bias is None else (bias / 2, 2 * bias)
    return {
        "evaluations": 64,
        "bias": {"value": bias, "low": ends[0], "high": ends[1]},
        "cosine": {"value": None if bias is None else 0.5, "low": 0.4, "high": 0.6},
        "noise": noise,
    }


def analysed(run: Path, trained_with: str, bias: float | None) -> Path:
    estimators = {"grad": quality(bias), "rgs": quality(0.01), "pgpe": quality(0.0, 778.4)}
    record = {
        "eps": 0.3,
        "trained_with": trained_with,
        "sigmas": {"0.01": 1e-4, "0.1": 1e-3},
        "relaxation": {
            name: {"gradients": {s: {"estimators": estimators} for s in ("0.01", "0.1")}} for name in ("ibp", "hbox")
        },
    }
    (run / "analysis").mkdir(parents=True)
    (run / "analysis" / "analysis.json").write_text(json.dumps(record))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three, of which one was not analysed."""
    analysed(tmp_path / "study" / "early" / "0", "ibp", 3.6)
    analysed(tmp_path / "study" / "late" / "0", "hbox", None)
    (tmp_path / "study" / "other" / "0").mkdir(parents=True)
    return [tmp_path / "study" / name / "0" for name in ("early", "late", "other")]


def test_a_row_for_every_run_loss_and_sigma(runs: list[Path]) -> None:
    rows = list(table_rows(read_analyses(runs)))
    assert len(rows) == 2 * 2 * 2
    assert rows[0] == (
        "early",
        "0.3",
        "ibp",
        "ibp",
        "0.01",
        "3.6 [1.8, 7.2]",
        "0.01 [0.005, 0.02]",
        "0.5",
        "0.5",
        "778",
    )
    assert rows[4][:6] == ("late", "0.3", "hbox", "ibp", "0.01", "-")


def test_a_value_without_an_interval_is_neither_told_nor_drawn(runs: list[Path]) -> None:
    """Where leaving out one replicate makes the smoothed gradient indistinguishable from noise."""
    path = runs[0] / "analysis" / "analysis.json"
    record = json.loads(path.read_text())
    record["relaxation"]["hbox"]["gradients"]["0.1"]["estimators"]["grad"]["bias"] = {
        "value": -5,
        "low": None,
        "high": None,
    }
    path.write_text(json.dumps(record))
    found = read_analyses(runs[:1])
    assert [row[5] for row in table_rows(found)] == ["3.6 [1.8, 7.2]"] * 3 + ["-"]
    drawn = draw_analyses(found).axes[0].get_legend_handles_labels()
    assert [len(line.lines[0].get_xdata()) for line in drawn[0]] == [2, 1]


def test_plots_of_bias_share_an_axis_that_ends_above_all_of_them(runs: list[Path]) -> None:
    axes = draw_analyses(read_analyses(runs)).axes
    assert {ax.get_ylim()[1] for ax in axes} == {2 * 7.2}


def test_names_are_what_paths_do_not_share(tmp_path: Path) -> None:
    one = analysed(tmp_path / "a" / "7", "ibp", 1.0)
    assert [found.name for found in read_analyses([one])] == ["7"]
    two = analysed(tmp_path / "a" / "8", "ibp", 1.0)
    assert [found.name for found in read_analyses([one, two])] == ["7", "8"]


def test_files_say_the_same(runs: list[Path], tmp_path: Path) -> None:
    found = read_analyses(runs)
    written = write_analyses(found, tmp_path)
    assert [path.name for path in written] == [f"analyses.{suffix}" for suffix in ("csv", "md", "png", "svg")]
    with (tmp_path / "analyses.csv").open() as file:
        heading, *rows = csv.reader(file)
    assert tuple(heading) == COLUMNS
    assert [tuple(row) for row in rows] == list(table_rows(found))
    assert len((tmp_path / "analyses.md").read_text().splitlines()) == 2 + len(rows)
    assert write_analyses([], tmp_path) == []


def test_the_figure_has_a_plot_for_each_run_and_estimator(runs: list[Path]) -> None:
    found = read_analyses(runs)
    shown = [ax for ax in draw_analyses(found * 3).axes if ax.get_visible()]
    assert len(shown) == len(BIASED) * 3 * 2
    assert {ax.get_title(loc="left") or ax.get_title() for ax in shown} == {
        f"{name}, {weights}: {estimator}"
        for name, weights in (("early", "ibp"), ("late", "hbox"))
        for estimator in BIASED
    }


def test_collect_writes_them_where_runs_were_analysed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    directory = run(tmp_path, "grad", "ibp", 0, 0.5)
    collect_command([str(tmp_path)])
    assert "analyses" not in capsys.readouterr().out
    analysed(Path(directory), "ibp", 0.2)
    collect_command([str(tmp_path)])
    assert "analyses.png" in capsys.readouterr().out.replace("\n", "")
    (Path(directory) / "analysis" / "analysis.json").write_text("[")
    with pytest.raises(DataError, match=r"analysis\.json is no JSON"):
        collect_command([str(tmp_path)])
