"""Runs of many directories become one table and one figure."""

import csv
import io
import json
import os
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import yaml
from rich.console import Console

from certtrain.cli.collect import collect_command, write
from certtrain.errors import CerttrainError
from certtrain.report.collect import Statistic, collect
from certtrain.report.collected import cells, write_collection
from certtrain.report.collected_figure import _lines
from certtrain.report.collected_text import notes, shared_lines

METHODS: dict[str, dict[str, Any]] = {
    "grad": {},
    "rgs": {"rgs.sigma": 0.01},
    "pgpe": {"pgpe.sigma": 0.05, "pgpe.population_size": 64},
}
RELAXATIONS = {"ibp": {}, "hbox": {}, "crown_ibp": {"lower_slope": "adaptive"}, "deeppoly": {"intersect": True}}
DATA = {"content": "0123456789abcdef", "judged": "fedcba9876543210"}


def run(
    folder: Path,
    method: str = "grad",
    relaxation: str = "ibp",
    seed: int = 0,
    certified: float | None = 0.5,
    record: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """A finished run; options are dotted keys with two underscores for the dot."""
    directory = folder / str(sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0)
    directory.mkdir(parents=True)
    node: dict[str, Any] = {
        "seed": seed,
        "eps": 0.05,
        "method": method,
        "data": {"name": "digits", "path": None, "source": {"name": "digits", "path": None, "hub": "x", "mean": [0.3]}},
        "relaxation": {"name": relaxation, **RELAXATIONS[relaxation]},
        "optimizer": {"lr": 0.01 if method == "pgpe" else 0.005},
        "trainer": {"devices": seed + 1},
    }
    for key, value in (METHODS[method] | {name.replace("__", "."): value for name, value in options.items()}).items():
        *path, last = key.split(".")
        inner = node
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = value
    (directory / "config.yaml").write_text(yaml.safe_dump(node, sort_keys=False))
    summary = {
        "natural_accuracy": None if certified is None else min(1.0, certified + 0.1),
        "certified_accuracy": certified,
        "certified_accuracy_by": {} if certified is None else {relaxation: certified / 2},
        "images": 100,
        "train_seconds": 2.0,
        "data": DATA,
        **(record or {}),
    }
    (directory / "summary.json").write_text(json.dumps(summary))
    return directory


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for i, method in enumerate(METHODS):
        for j, relaxation in enumerate(RELAXATIONS):
            for seed in range(3):
                run(tmp_path / "methods", method, relaxation, seed, 0.5 + 0.1 * i + 0.05 * j + 0.02 * seed)
    for sigma in (0.02, 0.1):
        for seed in range(3):
            run(tmp_path / "sigma", "pgpe", "deeppoly", seed, 0.4 + 0.01 * seed, pgpe__sigma=sigma)
    for seed in range(3):
        run(tmp_path / "population", "pgpe", "deeppoly", seed, 0.3, pgpe__population_size=16)
    return tmp_path


def seeds(directory: Path) -> list[tuple[int, ...]]:
    return [group.seeds for group in collect([directory]).groups]


def shown(directory: Path, encoding: str = "utf-8") -> str:
    """What a terminal of some encoding gets; what it cannot encode is an error."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    write(Console(file=file), [directory], directory / "out")
    file.seek(0)
    return file.read()


def test_runs_are_grouped_by_everything_but_the_seed(study: Path) -> None:
    found = collect([study])
    assert found.keys.columns == (*("relaxation.name", "method", "optimizer.lr", "pgpe.sigma", "pgpe.population_size"),)
    assert len(found.groups) == 12 + 2 + 1
    assert all(group.seeds == (0, 1, 2) for group in found.groups)
    first = found.groups[0]
    assert first.setting["relaxation.name"] == "ibp"
    assert first.setting["method"] == "grad"
    assert first.certified.mean == pytest.approx(52.0)
    assert first.certified.std == pytest.approx(stdev([50.0, 52.0, 54.0]))
    assert first.own.mean == pytest.approx(26.0)
    assert [group.setting["relaxation.name"] for group in found.groups if group.setting["method"] == "grad"] == list(
        RELAXATIONS
    )


def test_every_key_has_a_place(study: Path) -> None:
    """A column if it differs, a line if it comes with a column's value or is the same for all; never nothing."""
    found = collect([study])
    lines = shared_lines(found)
    assert "  images=100, eps=0.05" in lines
    assert "with method rgs: rgs.sigma=0.01" in lines
    assert "with relaxation.name crown_ibp: relaxation.lower_slope=adaptive" in lines
    everywhere = {*found.keys.columns, *found.keys.shared, *(key for c in found.keys.companions for key in c.setting)}
    assert everywhere == {key for group in found.groups for key in group.setting}


def test_what_differs_with_the_relaxation_or_the_method_is_a_column(tmp_path: Path) -> None:
    run(tmp_path, "grad", "ibp", eps=0.02)
    run(tmp_path, "pgpe", "deeppoly", eps=0.1, model__widths=[8], certify__verifiers=["ibp"])
    run(tmp_path, "pgpe", "deeppoly", eps=0.1, model__widths=[8, 8], certify__verifiers=["ibp", "hbox"])
    headings, rows = cells(collect([tmp_path]))
    assert headings[:6] == ["relaxation", "method", "eps", "model.widths", "optimizer.lr", "certify.verifiers"]
    assert [row[2:6] for row in rows] == [
        ["0.02", "-", "0.005", "-"],
        ["0.1", "[8]", "0.01", "[ibp]"],
        ["0.1", "[8, 8]", "0.01", "[ibp, hbox]"],
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 0.1},
        {"data__name": "mnist"},
        {"certify__limit": 10},
        {"certify__indices": [1, 2]},
        {"certify__verifiers": ["ibp"]},
        {"model__widths": [16]},
        {"clip": None},
        {"record": {"images": 99}},
        {"record": {"data": {**DATA, "content": "other"}}},
        {"record": {"data": {**DATA, "judged": "other"}}},
    ],
)
def test_what_is_not_the_same_is_never_averaged(tmp_path: Path, options: dict[str, Any]) -> None:
    run(tmp_path, seed=0)
    run(tmp_path, seed=1, **options)
    assert sorted(seeds(tmp_path)) == [(0,), (1,)]
    assert len(collect([tmp_path]).keys.columns) == 3


def test_numbers_are_compared_and_not_their_spelling(tmp_path: Path) -> None:
    run(tmp_path, seed=0, optimizer__lr=1, model__widths=[8.0])
    run(tmp_path, seed=1, optimizer__lr=1.0, model__widths=[8])
    run(tmp_path, seed=2, optimizer__lr=True, model__widths=[8])
    assert sorted(seeds(tmp_path)) == [(0, 1), (2,)]


def test_copies_of_the_same_data_are_the_same_data(tmp_path: Path) -> None:
    for seed, path in enumerate(("here", "there")):
        run(tmp_path, seed=seed, data__path=path, data__source__path=path, data__source__hub=path)
    assert seeds(tmp_path) == [(0, 1)]
    run(tmp_path, seed=2, data__source__mean=[0.5])  # is no place: it normalizes
    assert sorted(seeds(tmp_path)) == [(0, 1), (2,)]


def test_older_runs_are_told_apart_by_the_name_of_their_data_and_this_is_said(tmp_path: Path) -> None:
    run(tmp_path, seed=0)
    run(tmp_path, seed=1, record={"data": None}, data__path="there", data__source__path="there")
    found = collect([tmp_path])
    assert [group.seeds for group in found.groups] == [(0, 1)]
    assert notes(found) == ["1 run of an older version: what the data are is not recorded, only their name, digits"]
    run(tmp_path, seed=2, record={"data": {**DATA, "content": "other"}})  # which of both it was is not known now
    assert sorted(seeds(tmp_path)) == [(0,), (1,), (2,)]


def test_a_repeated_run_counts_once_and_an_unfinished_one_is_told(study: Path) -> None:
    again = run(study / "again", "grad", "ibp", 0, 0.89)
    later = (again / "summary.json").stat().st_mtime + 5
    os.utime(again / "summary.json", (later, later))
    unfinished = run(study / "again", "grad", "ibp", 7, 0.99)
    (unfinished / "summary.json").unlink()
    found = collect([study])
    assert found.groups[0].seeds == (0, 1, 2)
    assert found.groups[0].certified.mean == pytest.approx((89 + 52 + 54) / 3)
    assert notes(found) == [
        "1 run left out: a later one has the same setting and seed",
        f"without a result: {unfinished}",
    ]


def test_links_are_followed_and_nothing_counts_twice(tmp_path: Path) -> None:
    run(tmp_path / "elsewhere", seed=0)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "here")
    wandb = tmp_path / "elsewhere" / "0" / "wandb" / "offline-run-1" / "files"
    wandb.mkdir(parents=True)
    (wandb / "config.yaml").write_text("seed: 0\n")
    found = collect([tmp_path / "here", tmp_path])
    assert [group.seeds for group in found.groups] == [(0,)]
    assert notes(found) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("summary.json", b'{"natural_accuracy": 0.', "is no summary of a run"),
        ("summary.json", b"", "is no summary of a run"),
        ("summary.json", b"[" * 100_000, "is no summary of a run"),
        ("summary.json", b"\xff\xfe", "is no summary of a run"),
        ("summary.json", b"{}", "natural_accuracy: Field required"),
        ("summary.json", b'{"natural_accuracy": NaN, "certified_accuracy": 0.5}', "natural_accuracy: Input should be"),
        (
            "summary.json",
            b'{"natural_accuracy": "0.5", "certified_accuracy": 0.5}',
            "natural_accuracy: Input should be",
        ),
        ("summary.json", b'{"natural_accuracy": 1, "certified_accuracy": 0, "eps": 0.3}', "are of different runs: eps"),
        ("config.yaml", b"\xff\xfe\x00", "cannot be read"),
        ("config.yaml", b"a: [", "cannot be read"),
        ("config.yaml", b"", "holds no keys"),
        ("config.yaml", b"seed: 0\neps: 0.05\n", "is not complete: it lacks method"),
        ("config.yaml", b"relaxation: {name: ibp}\nmethod: grad\neps: 0.05\nseed: 1", "ends inside a line"),
        ("config.yaml", b"relaxation: {name: ibp}\nmethod: grad\neps: 0.05\nseed: x\n", "seed is 'x'"),
        ("config.yaml", None, "cannot be read"),
    ],
)
def test_a_damaged_run_is_named_and_the_others_are_collected(
    tmp_path: Path, name: str, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, seed=0)
    broken = run(tmp_path, seed=1)
    (broken / "metrics.jsonl").write_bytes(b"\xff garbage")  # which is not read
    if content is None:
        (broken / name).unlink()
    else:
        (broken / name).write_bytes(content)
    assert seeds(tmp_path) == [(0,)]
    collect_command([str(tmp_path)])
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith(f"left out: {broken}")]
    assert said in line
    assert line in (tmp_path / "collected.md").read_text().replace("- left out", "left out").replace("\\|", "|")
    with pytest.raises(CerttrainError, match="no finished run that can be read"):
        collect([broken])


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
    collect_command([str(study), "--output", str(study / "out")])
    printed = capsys.readouterr().out
    assert "crown_ibp" in printed
    assert "eps=0.05" in printed
    with (study / "out" / "collected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert float(rows[0]["certified_mean"]) == pytest.approx(52.0)
    assert {row["eps"] for row in rows} == {"0.05"}
    text = (study / "out" / "collected.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 17
    assert table[2].startswith("| ibp | grad | 0.005 | - | - | 3 | 62.00 ± 2.00 | 52.00 ± 2.00 | 26.00 ± 1.00 |")
    assert text.index("eps=0.05") < text.index(table[0])
    record = json.loads((study / "out" / "collected.json").read_text())
    assert len(record["groups"]) == 15
    assert record["keys"]["shared"]["eps"] == 0.05
    assert (study / "out" / "collected.png").read_bytes().startswith(b"\x89PNG")


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


def test_few_runs_and_runs_without_a_usual_value_are_drawn(tmp_path: Path) -> None:
    run(tmp_path, model__widths=[32])
    assert cells(collect([tmp_path]))[1] == [["ibp", "grad", "1", "60.00", "50.00", "25.00", "2.0"]]
    assert len(write_collection(collect([tmp_path]), tmp_path / "out")) == 4
    run(tmp_path, model__widths=[16])
    run(tmp_path, "pgpe", "hbox", certified=None, eps=0.1, pgpe__sigma=0.3)
    run(tmp_path, "pgpe", "deeppoly", eps=0.1, pgpe__sigma=0.1, a__b=["x" * 200, "$"], pgpe__layer_scale={})
    assert len(write_collection(collect([tmp_path]), tmp_path / "out")) == 4


def test_a_line_joins_groups_that_differ_in_one_number_only(study: Path) -> None:
    run(study / "other", "pgpe", "deeppoly", eps=0.1, pgpe__sigma=0.2)
    found = collect([study])
    (line,) = _lines(found, "pgpe.sigma")
    assert line.name == "deeppoly, pgpe"
    assert [group.setting["pgpe.sigma"] for group in line.groups] == [0.02, 0.05, 0.1]
    assert _lines(found, "optimizer.lr") == []


def test_nothing_to_collect_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CerttrainError, match="no finished run"):
        collect_command([str(tmp_path)])
    with pytest.raises(CerttrainError, match="is no directory"):
        collect_command([str(tmp_path / "nowhere")])
