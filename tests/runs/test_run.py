"""One run as Python reads it: made by `certtrain.train`, with own network, loss and arrays."""

import json
import os
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch

import certtrain
from certtrain.errors import ConfigError, DataError
from certtrain.runs.state import state_of


def test_a_run_is_made_of_own_parts_and_says_so(made):
    assert made.run.state == "finished"
    assert dict(made.run.config.model) == {"_target_": "certtrain_tests_own.Net", "width": 5}
    assert dict(made.run.config.loss) == {"_target_": "certtrain_tests_own.Plain", "weight": 0.5}
    assert list(made.run.config.data.source.shape) == [1, 4, 4]
    assert "test: 18 images" in made.printed
    assert "made/report.html" in made.printed
    assert "finished" in repr(made.run)


def test_what_was_read_are_tables(made):
    run = made.run
    assert run.summary["natural_accuracy"] == pytest.approx((run.ledger.status != "misclassified").mean())
    assert list(run.ledger.index) == list(range(6))
    assert {"label", "predicted", "status", "margin", "seconds_prediction"} <= set(run.ledger.columns)
    proved = run.ledger[run.ledger.verified_by == "ibp"]
    assert (proved.margin_ibp > 0).all()
    rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert all(
            run.metrics.loc[row["step"], key] == pytest.approx(value) for key, value in row.items() if key != "step"
        )
    assert run.certifications.empty
    assert set(run.figures) >= {"curves"}


def test_its_network_gives_the_predictions_of_the_ledger(made, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    network = made.run.network
    assert not network.training
    assert network.layers[1].out_features == 5
    (file,) = (made.folder / "outputs" / "data").iterdir()
    images = torch.from_numpy(np.load(file)["test_images"][:6])
    assert network(images).argmax(1).tolist() == made.run.ledger.predicted.tolist()


def test_changed_code_is_warned_of(made, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(made.run.directory, copy)
    known = json.loads((copy / "code.json").read_text())
    known["certtrain_tests_own"]["sha256"] = "0"
    (copy / "code.json").write_text(json.dumps(known))
    monkeypatch.setattr(sys, "path", [*sys.path])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert certtrain.Run.load(copy).network is not None
    assert any("is not what it was" in str(warning.message) for warning in caught)


def test_what_is_no_run_is_refused_in_one_line(made, tmp_path):
    with pytest.raises(DataError, match="there is no run directory"):
        certtrain.Run.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no config.yaml; certtrain.runs\(.*lists the runs below"):
        certtrain.Run.load(made.folder)
    (tmp_path / "config.yaml").write_text("[", encoding="utf-8")
    damaged = certtrain.Run.load(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        _ = damaged.config
    assert "damaged" in repr(damaged)


def test_a_table_has_a_row_for_each_run_and_a_reason_for_each_that_is_none(made, tmp_path, monkeypatch):
    for name in ("2", "10", "failed", "cut", "begun"):
        shutil.copytree(made.run.directory, tmp_path / "sweep" / name, ignore=shutil.ignore_patterns("checkpoints"))
    config = (tmp_path / "sweep" / "10" / "config.yaml").read_text()
    (tmp_path / "sweep" / "10" / "config.yaml").write_text(config.replace("\nseed: 0\n", "\nseed: 7\n"))
    summary = (tmp_path / "sweep" / "10" / "summary.json").read_text()
    (tmp_path / "sweep" / "10" / "summary.json").write_text(summary.replace('"seed": 0', '"seed": 7'))
    for name in ("failed", "begun"):
        (tmp_path / "sweep" / name / "summary.json").unlink()
    trace = tmp_path / "sweep" / "failed" / "traceback.txt"
    trace.write_text('rank 0\nTraceback:\n  File "x"\ncerttrain.errors.DataError: the disk is gone\n')
    (tmp_path / "sweep" / "cut" / "summary.json").write_text("{")
    (tmp_path / "sweep" / "killed").mkdir()
    (tmp_path / "sweep" / "killed" / "traceback.txt").write_text(
        "ended by SIGKILL (out of memory?); the last lines of\n"
    )
    monkeypatch.chdir(tmp_path)
    table = certtrain.runs("swe*/**")
    assert list(table.index) == [f"sweep/{name}" for name in ("2", "10", "begun", "cut", "failed", "killed")]
    assert table.state.tolist() == ["finished", "finished", "interrupted", "damaged", "failed", "failed"]
    assert table.reason["sweep/failed"] == "the disk is gone"
    assert table.reason["sweep/killed"].startswith("ended by SIGKILL")
    assert "summary.json" in table.reason["sweep/cut"]
    assert table.seed.tolist()[:2] == [0, 7]
    assert table.certified_accuracy["sweep/2"] == made.run.summary["certified_accuracy"]
    assert table["certified_accuracy_by.ibp"].notna().sum() == 2
    assert "trainer.max_steps" not in table.columns  # the same in all of them
    assert certtrain.runs(tmp_path / "sweep").equals(certtrain.runs([tmp_path / "sweep", tmp_path / "sweep" / "2"]))
    with pytest.raises(DataError, match="there is no directory 'nowhere/\\*\\*'"):
        certtrain.runs("nowhere/**")
    (tmp_path / "empty").mkdir()
    assert certtrain.runs("empty").empty
    later = trace.stat().st_mtime_ns + 10**9
    os.utime(tmp_path / "sweep" / "failed" / "metrics.jsonl", ns=(later, later))  # it went on, and was stopped
    assert state_of(tmp_path / "sweep" / "failed").name == "interrupted"
    (tmp_path / "sweep" / "begun" / "pruned.txt").write_text("behind after epoch 2\n")
    assert vars(state_of(tmp_path / "sweep" / "begun")) == {"name": "pruned", "reason": "behind after epoch 2"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"overrides": "eps=3"}, "overrides are a list such as"),
        ({"overrides": ["-m", "seed=1,2"]}, "runs one job; sweeps"),
        ({"overrides": ["--cfg", "job"]}, "--cfg belongs to the command line"),
        ({"overrides": ["collect"]}, "collect is a command"),
        ({"overrides": [3]}, 'an override is a word such as "eps=0.1", not 3'),
        ({"overrides": ["model=cnn3"], "model": "own.Net"}, "model is given twice, as an argument and as 'model=cnn3'"),
        ({"model": lambda: None}, "model: a lambda, where another process cannot find it"),
        ({"model": torch.nn.Linear(2, 2)}, "this Linear is an object.*functools.partial"),
        ({"model": 3}, "model: this int is an object"),
    ],
)
def test_what_another_process_cannot_have_is_refused_in_one_line(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        certtrain.train(**given)
    assert "\n" not in str(caught.value)


def test_classes_of_a_notebook_are_refused_and_told_where_to_put_them(monkeypatch, made):
    monkeypatch.setattr(made.module.Net, "__module__", "__main__")
    with pytest.raises(ConfigError, match="Net is defined in this notebook, .*%%writefile own.py"):
        certtrain.train(model=made.module.Net)
