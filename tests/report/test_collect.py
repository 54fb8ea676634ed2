"""Runs of many directories, found, read and grouped."""

import os
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from report.runs import DATA, RELAXATIONS, run

from certtrain.cli.commands.collect import collect_command
from certtrain.errors import CerttrainError
from certtrain.report.collect import collect
from certtrain.report.collected import cells
from certtrain.report.collected_text import notes, shared_lines
from certtrain.report.told import is_worth_saying, told


def seeds(directory: Path) -> list[tuple[int, ...]]:
    return [group.seeds for group in collect([directory]).groups]


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


def test_what_nobody_set_is_not_said_of_all(tmp_path: Path) -> None:
    typed = ["eps=0.05", "trainer.max_epochs=20", "model=mlp", "+sam.rho=0.1"]
    options = {"trainer__max_epochs": 20, "sam__rho": 0.1, "model___target_": "M", "model__widths": [8]}
    for seed in (0, 1):
        run(tmp_path, seed=seed, record={"overrides": [*typed, f"seed={seed}"]}, **options)
    first, *lines = shared_lines(collect([tmp_path]))
    assert first == "the same for all, as far as somebody set it:"
    assert sorted(lines) == sorted(
        [
            "  images=100, eps=0.05",
            "  data: name=digits",
            "  model: _target_=M",
            "  sam: rho=0.1",
            "  trainer: max_epochs=20",
        ]
    )


def test_what_an_experiment_and_its_recipe_set_was_set() -> None:
    keys = told(["experiment=ctbench_mnist_0.1_ibp", "pgpe.sigma=0.1"])
    assert keys is not None
    assert {"eps", "schedule.eps.scale", "loss.shi", "optimizer.lr", "pgpe.sigma", "model._target_"} <= keys
    assert not any(is_worth_saying(key, None, keys) for key in ("model.widths", "fork", "sam.rho", "loss.l1"))
    assert told(["experiment=my_own"]) is None, "what it sets stands in a file that is not certtrain's"
    assert told(None) is None


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
    by_different, *rest = notes(found)
    assert by_different.startswith("certified by different verifiers")
    assert rest == [
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
            "natural_accuracy is no number",
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
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    run(tmp_path, seed=0)
    broken = run(tmp_path, seed=1)
    (broken / "metrics.jsonl").write_bytes(b"\xff garbage")  # which is not read
    if content is None:
        (broken / name).unlink()
    else:
        (broken / name).write_bytes(content)
    assert seeds(tmp_path) == [(0,)]
    (line,) = notes(collect([tmp_path]))
    assert line.startswith(f"left out: {broken}")
    assert said in line
    with pytest.raises(CerttrainError, match="no finished run that can be read"):
        collect([broken])


def test_nothing_to_collect_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CerttrainError, match="no finished run"):
        collect_command([str(tmp_path)])
    with pytest.raises(CerttrainError, match="is no directory"):
        collect_command([str(tmp_path / "nowhere")])


def test_options_of_verifiers_count_where_these_certified(tmp_path: Path) -> None:
    asked = {"certify__verifiers": ["ibp"]}
    run(tmp_path, seed=0, **asked, verifier__hbox__memory_mb=1)
    run(tmp_path, seed=1, **asked, verifier__hbox__memory_mb=2)
    assert seeds(tmp_path) == [(0, 1)]
    run(tmp_path, seed=2, **asked, verifier__ibp__backend="native", verifier__ibp__name="ibp")
    assert seeds(tmp_path) == [(0, 1, 2)], "as it was before there were nodes for them"
    run(tmp_path, seed=3, **asked, verifier__ibp__backend="other", verifier__ibp__name="ibp")
    assert sorted(seeds(tmp_path)) == [(0, 1, 2), (3,)]


def test_numbers_of_different_cascades_are_never_mixed(tmp_path: Path) -> None:
    run(tmp_path, seed=0)
    run(tmp_path, seed=1, certify__cascade="all")
    left = {"certified_accuracy_by": {}, "verifiers": {}, "cascade": "first"}
    run(tmp_path, seed=2, certify__cascade="first", record=left)
    collection = collect([tmp_path])
    assert sorted(group.seeds for group in collection.groups) == [(0, 1), (2,)]
    by = {group.seeds: (str(group.own), list(group.by)) for group in collection.groups}
    assert by == {(0, 1): ("25.00 ± 0.00", ["ibp"]), (2,): ("-", [])}
