"""What is said, written and drawn of collected runs."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from pictures import check_layout, points
from report.runs import run
from rich.console import Console

from certtrain.cli.commands.collect import collect_command, write
from certtrain.report.collect import Statistic, collect
from certtrain.report.collected import cells, print_collection, write_collection
from certtrain.report.collected_figure import _lines, draw_collection
from certtrain.report.collected_latex import latex
from certtrain.report.collected_text import notes


def shown(directory: Path, encoding: str = "utf-8") -> str:
    """What a terminal of some encoding gets; what it cannot encode is an error."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    write(Console(file=file), [directory], directory / "out")
    file.seek(0)
    return file.read()


def tally(judged: int, failed: int = 0, skipped: int = 20) -> dict[str, int]:
    return {"passed": 0, "decided": judged + skipped, "judged": judged, "failed": failed, "skipped": skipped}


def test_a_verifier_that_did_not_judge_is_no_zero(tmp_path: Path) -> None:
    """Of 100 images each, 20 misclassified: those need no verifier."""
    failures = [{"stage": "deeppoly", "kind": "oom", "images": 8, "message": ""}]
    failures += [{"stage": "deeppoly", "kind": "timeout", "images": 2, "message": ""}]
    for seed, own, deeppoly, failed in (
        (0, 0.4, tally(70, 10), failures),
        (1, None, tally(0, 80), [{"stage": "deeppoly", "kind": "error", "images": 80, "message": "x"}]),
    ):
        record = {
            "certified_accuracy_by": {"ibp": 0.2, "deeppoly": own},
            "verifiers": {"ibp": tally(80), "deeppoly": deeppoly},
            "statuses": {"misclassified": 20, "oom": 3 * seed},
            "failures": failed,
        }
        run(tmp_path / "some", relaxation="deeppoly", seed=seed, record=record)
    some = collect([tmp_path / "some"])
    assert [str(some.groups[0].own), str(some.groups[0].by["ibp"].certified)] == ["40.00 (90 of 200)", "20.00 ± 0.00"]
    assert str(some.groups[0].certified) == "50.00 ± 0.00 (197 of 200)"
    assert notes(some)[1:] == [
        "deeppoly, grad: deeppoly judged 70 images, failed on 90 (8 oom, 2 timeout, 80 error), skipped 40"
    ]
    write_collection(some, tmp_path)
    with (tmp_path / "collected.csv").open() as file:
        (row,) = csv.DictReader(file)
    prefix = "certified_by_deeppoly_"
    assert {key.removeprefix(prefix): row[key] for key in row if key.startswith(prefix)} == {
        **{"mean": "40.0", "std": "", "decided": "90", "images": "200"},
        **{"judged": "70", "failed": "90", "skipped": "40"},
    }


def test_no_number_is_a_dash_with_the_count(tmp_path: Path) -> None:
    prediction = tally(90, 10, 0)
    record = {"certified_accuracy_by": {"ibp": None}, "verifiers": {"ibp": tally(0, 80)}, "prediction": prediction}
    run(tmp_path, record=record)
    headings, (row,) = cells(collect([tmp_path]))
    assert dict(zip(headings, row, strict=True)) | {"training s": ""} == {
        **{"relaxation": "ibp", "method": "grad", "seeds": "1", "training s": ""},
        **{"natural %": "60.00 (90 of 100)", "certified % (union)": "50.00"},
        "certified % (its relaxation)": "- (0 of 100)",
    }
    run(tmp_path / "older", seed=1, record={"certified_accuracy_by": {"ibp": 0.25}})
    assert str(collect([tmp_path]).groups[0].own) == "25.00 (100 of 200)"


def test_versions_that_were_mixed_are_told(tmp_path: Path) -> None:
    for seed, version in enumerate(("2.1", "2.2")):
        run(tmp_path, seed=seed, record={"versions": {"torch": version, "python": "3.11"}})
    assert notes(collect([tmp_path])) == ["ibp, grad: made with several versions of torch: 2.1, 2.2"]


def test_one_seed_has_no_deviation_and_a_missing_number_is_no_zero() -> None:
    assert str(Statistic.of([0.5])) == "50.00"
    assert str(Statistic.of([0.5, 0.7])) == "60.00 ± 14.14"
    assert str(Statistic.of([None])) == "-"


def test_everything_is_written(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = run(study / "broken")
    (broken / "summary.json").write_text("{")
    collect_command([str(study), "--output", str(study / "out")])
    printed = capsys.readouterr().out
    assert f"left out: {broken}" in printed
    assert "crown_ibp" in printed
    assert "eps=0.05" in printed
    with (study / "out" / "collected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert float(rows[0]["certified_mean"]) == pytest.approx(52.0)
    assert {row["eps"] for row in rows} == {"0.05"}
    text = (study / "out" / "collected.md").read_text()
    assert f"- left out: {broken}" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 17
    assert table[2].startswith("| ibp | grad | 0.005 | - | - | 3 | 62.00 ± 2.00 | 52.00 ± 2.00 | 26.00 ± 1.00 |")
    assert text.index("eps=0.05") < text.index(table[0])
    record = json.loads((study / "out" / "collected.json").read_text())
    assert len(record["groups"]) == 15
    assert record["keys"]["shared"]["eps"] == 0.05
    assert (study / "out" / "collected.png").read_bytes().startswith(b"\x89PNG")


def test_latex_escapes_text_and_never_mixes_verifiers(tmp_path: Path) -> None:
    run(
        tmp_path,
        relaxation="crown_ibp",
        model__widths="50%_wide",
        record={"certified_accuracy_by": {"crown_ibp": 0.25}},
    )
    for seed in (0, 1):
        by = {"ibp": 0.1 + 0.1 * seed, "deeppoly": None}
        run(tmp_path, seed=seed, model__widths="#1 & $x^2$", record={"certified_accuracy_by": by})
    collection = collect([tmp_path])
    text = latex(collection)
    lines = [line for line in text.splitlines() if line.endswith("\\")]
    columns = len(re.search(r"tabular}{(\w+)}", text)[1])
    assert {line.count(" & ") + 1 for line in lines[1:]} == {columns}, "every row has every column"
    assert lines[0].count("&") + 4 + 1 == columns - 1, (
        "over the three verifiers, their union and its name; then seconds"
    )
    assert lines[1].startswith(
        "relaxation & method & model.widths & seeds & natural & ibp & deeppoly & crown\\_ibp & any"
    )
    cells_of = [line.removesuffix(" \\\\").split(" & ") for line in lines[2:]]
    assert cells_of[0] == [
        *("ibp", "grad", "\\#1 \\& \\$x\\textasciicircum{}2\\$", "2", "60.00 $\\pm$ 0.00"),
        *("15.00 $\\pm$ 7.07", "-- (0 of 200)", "--", "50.00 $\\pm$ 0.00", "ibp, deeppoly", "2.0"),
    ]
    assert cells_of[1][2:] == ["50\\%\\_wide", "1", "60.00", "--", "--", "25.00", "50.00", "crown\\_ibp", "2.0"]
    assert "certified by different verifiers" in notes(collection)[0]


def test_every_setting_is_a_row_of_the_figure(study: Path) -> None:
    collection = collect([study])
    canvas = draw_collection(collection)
    rows, sigma, size = canvas.axes
    assert canvas.get_suptitle().startswith("digits, eps 0.05, 100 test images")
    heading, *labels = [label.get_text() for label in rows.get_yticklabels()]
    assert heading.split("\n")[-1].split() == ["relaxation", "method", "lr", "sigma", "population_size"]
    assert [label.split()[:2] for label in labels] == [
        [group.setting["relaxation.name"], group.setting["method"]] for group in collection.groups
    ]
    drawn = {container.get_label(): points(container.lines[0]) for container in rows.containers}
    assert set(drawn) == {"grad: certified", "rgs: certified", "pgpe: certified", "natural"}
    certified = sorted(point for name, found in drawn.items() if name != "natural" for point in found)
    assert certified == sorted((group.certified.mean, i) for i, group in enumerate(collection.groups))
    assert drawn["natural"] == [(group.natural.mean, i) for i, group in enumerate(collection.groups)]
    assert {text.get_text() for text in rows.get_legend().get_texts()} == set(drawn)
    assert (sigma.get_xlabel(), size.get_xlabel()) == ("pgpe.sigma", "pgpe.population_size")
    natural, line = [container.lines[0] for container in sigma.containers]
    assert [x for x, _ in points(line)] == [0.02, 0.05, 0.1]
    assert [y for _, y in points(line)] == pytest.approx([41, 87, 41])
    assert [y for _, y in points(natural)] == pytest.approx([51, 97, 51])
    assert [text.get_text() for text in sigma.get_legend().get_texts()] == ["deeppoly, pgpe"]
    assert [tick.get_text() for tick in size.get_xticklabels()] == ["16", "64"]
    check_layout(canvas)


def test_a_figure_has_room_for_many_settings_and_long_values(tmp_path: Path) -> None:
    for eps in (0.0, 0.001, 0.002, 0.003, 0.01, 0.05, 0.1, 0.3):
        for lr in (0.1, 0.2, 0.4):
            for widths in ([32], ["x" * 200, "$"]):
                run(tmp_path / f"{lr}", "grad", "ibp", 0, 1.0 - eps, eps=eps, optimizer__lr=lr, model__widths=widths)
    run(tmp_path, "pgpe", "hbox", certified=None, eps=0.1, pgpe__sigma=0.3)
    canvas = draw_collection(collect([tmp_path]))
    check_layout(canvas)
    rows, *panels = canvas.axes
    assert [text.get_text() for text in rows.texts] == ["not certified"]
    assert [ax.get_xlabel() for ax in panels] == ["eps", "optimizer.lr (8 more lines are in the table)"]
    assert all(low < 0 and high > 100 for low, high in (ax.get_ylim() for ax in panels)), "points at 100% are whole"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_terminal_gets_the_table(tmp_path: Path, encoding: str) -> None:
    """Values that look like markup are no markup, and what a terminal has no character for is written in others."""
    for seed in range(2):
        run(tmp_path, seed=seed, certified=0.5 + seed / 10, model__widths=["[ibp, hbox]", "größe"])
    run(tmp_path, model__widths=["[bold]", "大"] * 20)
    text = shown(tmp_path, encoding)
    assert ("+-" if encoding == "ascii" else "±") in text
    assert "[ibp, hbox]" in text
    assert "[bold]" in text
    assert ("größe" in text) == (encoding != "ascii")


@pytest.mark.parametrize("width", [60, 72, 80, 100])
def test_a_figure_is_not_parted_from_its_deviation(tmp_path: Path, width: int) -> None:
    for seed in range(2):
        for sigma in (0.01, 0.05):
            run(
                tmp_path,
                "pgpe",
                "deeppoly",
                seed=seed,
                certified=0.5 + seed / 10,
                pgpe__sigma=sigma,
                optimizer__lr=sigma,
            )
    file = io.StringIO()
    print_collection(Console(file=file, width=width, force_terminal=True, color_system=None), collect([tmp_path]))
    text = file.getvalue()
    assert text.count("55.00 ± 7.07") == 2
    assert all(len(line) <= width for line in text.splitlines() if "7.07" in line)


def test_few_runs_and_runs_without_a_usual_value_are_drawn(tmp_path: Path) -> None:
    run(tmp_path, model__widths=[32])
    assert cells(collect([tmp_path]))[1] == [["ibp", "grad", "1", "60.00", "50.00", "25.00", "2.0"]]
    assert len(write_collection(collect([tmp_path]), tmp_path / "out")) == 5
    run(tmp_path, model__widths=[16])
    run(tmp_path, "pgpe", "hbox", certified=None, eps=0.1, pgpe__sigma=0.3)
    run(tmp_path, "pgpe", "deeppoly", eps=0.1, pgpe__sigma=0.1, a__b=["x" * 200, "$"], pgpe__layer_scale={})
    assert len(write_collection(collect([tmp_path]), tmp_path / "out")) == 5


def test_a_line_joins_groups_that_differ_in_one_number_only(study: Path) -> None:
    run(study / "other", "pgpe", "deeppoly", eps=0.1, pgpe__sigma=0.2)
    found = collect([study])
    (line,) = _lines(found, "pgpe.sigma")
    assert line.name == "deeppoly, pgpe"
    assert [group.setting["pgpe.sigma"] for group in line.groups] == [0.02, 0.05, 0.1]
    assert _lines(found, "optimizer.lr") == []
