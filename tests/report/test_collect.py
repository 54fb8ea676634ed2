"""Runs of many directories become one table and one figure."""

import csv
import json
import os
from pathlib import Path
from statistics import stdev

import pytest
import yaml

from certtrain.cli.collect import collect_command
from certtrain.errors import CerttrainError
from certtrain.report.collect import Statistic, collect, reference
from certtrain.report.collected import cells, notes, write_collection

METHODS = {"grad": {}, "rgs": {"rgs": {"sigma": 0.01}}, "pgpe": {"pgpe": {"sigma": 0.05, "population_size": 64}}}
RELAXATIONS = {"ibp": {}, "hbox": {}, "crown_ibp": {"lower_slope": "adaptive"}, "deeppoly": {"intersect": True}}


def run(folder: Path, method: str, relaxation: str, seed: int, certified: float, **options: float) -> Path:
    directory = folder / f"{method}-{relaxation}-{seed}-{'-'.join(map(str, options.values()))}"
    directory.mkdir(parents=True)
    node = {
        "seed": seed,
        "eps": 0.05,
        "method": method,
        "relaxation": {"name": relaxation, **RELAXATIONS[relaxation]},
        "optimizer": {"lr": 0.01 if method == "pgpe" else 0.005},
        "trainer": {"devices": seed + 1},
        **{key: {**value, **options} for key, value in METHODS[method].items()},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(node, sort_keys=False))
    record = {
        "natural_accuracy": min(1.0, certified + 0.1),
        "certified_accuracy": certified,
        "certified_accuracy_by": {relaxation: certified / 2},
        "train_seconds": 2.0,
    }
    (directory / "summary.json").write_text(json.dumps(record))
    return directory


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for i, method in enumerate(METHODS):
        for j, relaxation in enumerate(RELAXATIONS):
            for seed in range(3):
                run(tmp_path / "methods", method, relaxation, seed, 0.5 + 0.1 * i + 0.05 * j + 0.02 * seed)
    for sigma in (0.02, 0.1):
        for seed in range(3):
            run(tmp_path / "sigma", "pgpe", "deeppoly", seed, 0.4 + 0.01 * seed, sigma=sigma)
    for seed in range(3):
        run(tmp_path / "population", "pgpe", "deeppoly", seed, 0.3, population_size=16)
    return tmp_path


def test_runs_are_grouped_by_everything_but_the_seed(study: Path) -> None:
    found = collect([study])
    assert found.keys == ("relaxation.name", "method", "pgpe.sigma", "pgpe.population_size")
    assert len(found.groups) == 12 + 2 + 1
    assert all(group.seeds == (0, 1, 2) for group in found.groups)
    assert reference(found) == {"pgpe.sigma": 0.05, "pgpe.population_size": 64}
    first = found.groups[0]
    assert first.setting == {"relaxation.name": "ibp", "method": "grad"}
    assert first.certified.mean == pytest.approx(52.0)
    assert first.certified.std == pytest.approx(stdev([50.0, 52.0, 54.0]))
    assert first.own.mean == pytest.approx(26.0)
    assert [group.setting["relaxation.name"] for group in found.groups[::3][:4]] == list(RELAXATIONS)


def test_a_repeated_run_counts_once_and_an_unfinished_one_is_told(study: Path) -> None:
    again = run(study / "again", "grad", "ibp", 0, 0.99)
    later = (again / "summary.json").stat().st_mtime + 5
    os.utime(again / "summary.json", (later, later))
    (run(study / "again", "grad", "ibp", 7, 0.99) / "summary.json").unlink()
    found = collect([study])
    assert found.groups[0].seeds == (0, 1, 2)
    assert found.groups[0].certified.mean == pytest.approx((99 + 52 + 54) / 3)
    assert len(notes(found)) == 2


def test_one_seed_has_no_deviation_and_a_missing_number_is_no_zero() -> None:
    assert str(Statistic.of([0.5])) == "50.00"
    assert str(Statistic.of([0.5, 0.7])) == "60.00 ± 14.14"
    assert str(Statistic.of([None])) == "-"


def test_everything_is_written(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    collect_command([str(study), "--output", str(study / "out")])
    shown = capsys.readouterr().out
    assert "crown_ibp" in shown
    with (study / "out" / "collected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert float(rows[0]["certified_mean"]) == pytest.approx(52.0)
    table = (study / "out" / "collected.md").read_text().splitlines()
    assert len(table) == 17
    assert table[2].startswith("| ibp | grad | - | - | 3 | 62.00 ± 2.00 | 52.00 ± 2.00 | 26.00 ± 1.00 |")
    assert len(json.loads((study / "out" / "collected.json").read_text())["groups"]) == 15
    assert (study / "out" / "collected.png").read_bytes().startswith(b"\x89PNG")


def test_few_runs_are_drawn_too(tmp_path: Path) -> None:
    run(tmp_path, "grad", "ibp", 0, 0.5)
    found = collect([tmp_path])
    assert cells(found)[1] == [["ibp", "grad", "1", "60.00", "50.00", "25.00", "2.0"]]
    assert len(write_collection(found, tmp_path / "out")) == 4


def test_nothing_to_collect_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CerttrainError, match="no finished run"):
        collect_command([str(tmp_path)])
    with pytest.raises(CerttrainError, match="is no directory"):
        collect_command([str(tmp_path / "nowhere")])
