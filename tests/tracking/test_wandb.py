"""W&B shows what the run directory holds: the same numbers on the same axis, live and rebuilt."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb_files import OfflineRun, offline_run

from certtrain.certify import read_ledger
from certtrain.cli.commands.sync import sync_command
from certtrain.errors import CerttrainError
from certtrain.report.metrics import read_rows
from certtrain.report.summary import read_summary
from certtrain.tracking.dashboard.panels import keys_of, sections
from certtrain.tracking.facts import facts_of, name_of, results
from certtrain.tracking.identity import begin_identity, identity


def numbers(run: OfflineRun) -> list[tuple[int, dict[str, float]]]:
    """Step -> what a row has of metrics.jsonl."""
    rows = []
    for row in run.rows:
        assert row["_step"] == row["step"]
        kept = {
            k: v for k, v in row.items() if isinstance(v, (int, float)) and not k.startswith(("tables/", "pictures/"))
        }
        rows.append((kept.pop("_step"), {k: v for k, v in kept.items() if k != "step"}))
    return rows


def the_same(found: list[tuple[int, dict[str, float]]], wanted: list[tuple[int, dict[str, float]]]) -> None:
    assert [step for step, _ in found] == [step for step, _ in wanted]
    for (_, one), (_, other) in zip(found, wanted, strict=True):
        finite = {key: value for key, value in other.items() if not math.isnan(value)}
        assert {key: pytest.approx(value, rel=1e-12) for key, value in finite.items()} == {k: one[k] for k in finite}


@pytest.fixture(scope="module")
def live(run: Path) -> OfflineRun:
    return offline_run(run)


@pytest.fixture(scope="module")
def copied(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record, as it comes from another machine, without anything of W&B."""
    place = tmp_path_factory.mktemp("elsewhere") / "copy"
    return shutil.copytree(run, place, ignore=shutil.ignore_patterns("wandb*", "csv", "tensorboard"))


@pytest.fixture(scope="module")
def rebuilt(copied: Path, run: Path) -> OfflineRun:
    sync_command([str(copied), "--offline", "--project", "other"])
    return offline_run(copied / "wandb-sync")


def test_rows_are_those_of_the_record_on_one_axis(run: Path, live: OfflineRun, rebuilt: OfflineRun) -> None:
    rows = read_rows(run / "metrics.jsonl")
    assert {"train/loss", "train/centre_loss", "gradient_snr", "sigma"} <= rows[-1][1].keys()
    the_same(numbers(live), rows)
    the_same(numbers(rebuilt), rows)
    for shown in (live, rebuilt):
        assert {metric.glob_name: metric.step_metric for metric in shown.metrics if metric.glob_name} == {"*": "step"}


def test_a_run_can_be_found_among_others(live: OfflineRun, rebuilt: OfflineRun, run: Path) -> None:
    assert live.run.run_id == (run / "wandb_id.txt").read_text().strip()
    assert (live.run.project, rebuilt.run.project) == ("certtrain", "other")
    for shown in (live, rebuilt):
        assert shown.run.run_group == "together"
        assert shown.run.job_type == "train"
        assert set(shown.run.tags) == {"digits", "mlp", "robust_ce", "deeppoly", "pgpe"}
        config = shown.config
        assert config["pgpe/sigma"] == config["sigma"] == 0.05
        assert (config["population_size"], config["setting"], config["model/widths"]) == (8, "deeppoly × pgpe", [16])
        assert not any("." in key for key in config)
        assert not any(isinstance(value, dict) for key, value in config.items() if key != "_wandb")
    assert (live.exit_code, rebuilt.exit_code) == (0, 0)


def test_the_machine_is_measured_where_the_run_is(live: OfflineRun, rebuilt: OfflineRun) -> None:
    assert "environment" in live.kinds
    assert not {"environment", "stats"} & rebuilt.kinds


def test_results_are_those_of_the_summary(run: Path, live: OfflineRun, rebuilt: OfflineRun) -> None:
    wanted = results(read_summary(run / "summary.json"))
    assert {
        "natural_accuracy",
        "certified_accuracy_by/deeppoly",
        "stages/attack/settled",
        "train_seconds",
    } <= wanted.keys()
    for shown in (live, rebuilt):
        assert {key: shown.summary[key] for key in wanted} == wanted
    told = {"config": {"eps": 1.0}, "model_options": {"width": 3}, "relaxation": "ibp", "images": 3}
    assert results(told) == {"images": 3, "failures": 0}


def test_verdicts_are_tables_and_failures_have_pictures(run: Path, live: OfflineRun, rebuilt: OfflineRun) -> None:
    verdicts = read_ledger(run / "ledger.jsonl")
    failed = [verdict.index for verdict in verdicts if verdict.status in ("falsified", "unknown")]
    assert failed
    for shown in (live, rebuilt):
        table = shown.table("tables/ledger")
        assert table["index"] == [verdict.index for verdict in verdicts]
        assert table["status"] == [verdict.status for verdict in verdicts]
        failures = shown.table("tables/failures")
        assert len(failures["index"]) == min(3, len(failed))
        assert set(failures["index"]) <= set(failed)
        assert all(image is not None for image in failures["image"])
        assert [point is not None for point in failures["counterexample"]] == [
            status == "falsified" for status in failures["status"]
        ]
        (kept,) = [files for name, files in shown.artifacts.items() if "tablesfailures" in name]
        assert sum(file.endswith(".png") for file in kept) >= len(failures["index"])
        assert shown.table("tables/stages")["stage"][:2] == ["prediction", "attack"]
        assert shown.table("tables/point")["certified_accuracy"] == [shown.summary["certified_accuracy"]]


def test_files_are_uploaded_once(run: Path, live: OfflineRun, rebuilt: OfflineRun) -> None:
    for shown in (live, rebuilt):
        files = {name.rsplit("-", 1)[0]: kept for name, kept in shown.artifacts.items() if not name.startswith("run-")}
        assert files["checkpoint"] == ["checkpoints/best.ckpt"]
        assert {"ledger.jsonl", "ledger.meta.json"} <= set(files["ledger"])
        assert set(files["record"]) == {"config.yaml", "metrics.jsonl", "report.html", "summary.json"}


def test_panels_refer_only_to_what_runs_log(live: OfflineRun) -> None:
    asked = keys_of(sections("me"))
    logged = {key for row in live.rows for key in row}
    assert asked.history <= logged
    assert asked.summary <= live.summary.keys()
    assert asked.config <= live.config.keys()
    for name, columns in asked.tables.items():
        assert columns <= live.table(name).keys()
    assert {f"{key}/path" for key in asked.media} <= logged
    assert {"train/centre_loss", "gradient_snr"} <= asked.history
    assert {"sigma", "population_size", "setting"} <= asked.config | asked.tables["tables/point"]


def test_what_is_there_is_not_sent_again(copied: Path, rebuilt: OfflineRun, capsys: pytest.CaptureFixture[str]) -> None:
    sync_command([str(copied), "--offline", "--project", "other"])
    assert f"{rebuilt.run.run_id} is up to date" in capsys.readouterr().out
    assert offline_run(copied / "wandb-sync").folder == rebuilt.folder


def test_a_crashed_run_is_sent_and_completed_under_its_id(
    copied: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crashed = shutil.copytree(copied, tmp_path / "crashed")
    (crashed / "summary.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (crashed / "metrics.jsonl").write_text("".join(lines[:4]) + lines[4][:9])
    damaged = tmp_path / "damaged"
    shutil.copytree(crashed, damaged, ignore=shutil.ignore_patterns("wandb-sync"))
    (damaged / "metrics.jsonl").write_text("nonsense\n")
    with pytest.raises(CerttrainError, match="sync: 1 of 2 runs were not sent"):
        sync_command([str(tmp_path), "--offline"])
    output = capsys.readouterr().out
    assert f"not sent: {damaged}/metrics.jsonl line 1 is no JSON" in output
    found = offline_run(crashed / "wandb-sync")
    assert found.run.run_id == identity(copied)
    assert found.exit_code == 1
    the_same(numbers(found), read_rows(crashed / "metrics.jsonl"))


def test_copies_of_a_record_are_one_run_and_other_runs_are_others(run: Path, tmp_path: Path) -> None:
    kept = ("config.yaml", "metrics.jsonl")
    for name in ("one", "two", "other", "begun"):
        (tmp_path / name).mkdir()
        for file in kept:
            shutil.copy(run / file, tmp_path / name / file)
    rows = (run / "metrics.jsonl").read_text()
    (tmp_path / "other" / "metrics.jsonl").write_text(rows.replace('"step": 0', '"step": 1', 1))
    one, two, other = (identity(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two != other
    assert identity(tmp_path / "one") == begin_identity(tmp_path / "one") == one
    assert begin_identity(tmp_path / "begun") != one


def test_a_run_is_called_from_its_beginning_what_its_summary_will_call_it(run: Path) -> None:
    node, summary = yaml.safe_load((run / "config.yaml").read_text()), json.loads((run / "summary.json").read_text())
    assert facts_of(node).title == name_of(facts_of(node), {}) == summary["title"]
    assert name_of(facts_of(node), {"title": "its own"}) == "its own"
    other = {**node, "model": {"_target_": "mine.Net", "name": 200 * "x"}}
    assert facts_of(other).model == "mine.Net"
    assert "mine.Net" in facts_of(other).title
    wide = {**node, "data": {"name": 200 * "x"}}
    assert len(name_of(facts_of(wide), {})) == 128
    assert facts_of({"data": "digits", "relaxation": "ibp", "eps": 0.1}).title.startswith("digits: trained with ibp")


def test_files_beside_the_record_hold_the_same(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        table: list[dict[str, Any]] = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items() if v} for row in table] == rows
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(row["step"], pytest.approx(row["train/loss"])) for row in rows if "train/loss" in row]
