"""What is sent to a server that has part of a run already; and what is said where something is missing."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from certtrain.cli.configuration.schema import parse
from certtrain.cli.configuration.schema.views import Logger
from certtrain.cli.job.views import bring_up_to_date, target_of
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.errors import ConfigError
from certtrain.report.metrics import read_rows
from certtrain.tracking.facts import facts_of
from certtrain.tracking.files import csv_view
from certtrain.tracking.identity import Sent, sent
from certtrain.tracking.packages import require
from certtrain.tracking.sync import sync
from certtrain.tracking.wandb_run import Target


class Server:
    """A W&B that knows how far a run is.

    Attributes:
        step: The next one that it takes.
        runs: What was opened.
        rows: What it has taken.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self.runs: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.codes: list[int] = []

    def init(self, **given: Any) -> Any:
        self.runs.append(given)
        return SimpleNamespace(
            id=given["id"],
            url="https://wandb.test/run",
            starting_step=self.step,
            config={},
            summary={},
            define_metric=lambda *_, **__: None,
            log=self._log,
            log_artifact=lambda artifact: None,
            finish=lambda exit_code: self.codes.append(exit_code),
        )

    def _log(self, row: dict[str, Any], step: int) -> None:
        assert step >= self.step, "W&B would ignore it"
        self.rows.append((step, row))


@pytest.fixture
def record(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("wandb", "csv", "tensorboard"))


@pytest.fixture
def node(record: Path) -> dict[str, Any]:
    found = RunDirectory(record).configuration()
    assert found is not None
    return found


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    import wandb

    server = Server(step=20)

    class Config(dict):  # type: ignore[type-arg]
        def update(self, found: dict[str, Any], allow_val_change: bool = False) -> None:
            super().update(found)

    def init(**given: Any) -> Any:
        run = server.init(**given)
        run.config = Config()
        return run

    monkeypatch.setattr(wandb, "init", init)
    return server


def test_only_what_the_server_has_not_got_is_sent_and_only_once(
    record: Path, node: dict[str, Any], server: Server
) -> None:
    target = Target("study", "team")
    done = sync(record, node, target, offline=False)
    later = [step for step, _ in read_rows(record / "metrics.jsonl") if step >= 20]
    assert done.rows == len(read_rows(record / "metrics.jsonl"))
    assert [step for step, _ in server.rows] == [*later, later[-1]]
    assert "tables/ledger" in server.rows[-1][1]
    (opened,) = server.runs
    assert (opened["id"], opened["resume"]) == (done.id, "allow")
    assert (opened["entity"], opened["project"]) == ("team", "study")
    assert sent(record) == Sent(done.id, "team/study", sent(record).digest)  # type: ignore[union-attr]
    assert sync(record, node, target, offline=False).rows is None
    assert len(server.runs) == 1
    sync(record, node, Target("other", "team"), offline=False)  # it is not there
    assert len(server.runs) == 2


def test_what_was_drawn_afterwards_is_added(
    record: Path, node: dict[str, Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    server.step = 40  # beyond the last row
    (record / "landscape").mkdir()
    shutil.copy(record / "curves.png", record / "landscape" / "plane.png")
    bring_up_to_date(parse(node), node, record)
    ((step, row),) = server.rows
    assert (step, row["step"]) == (40, 40)
    assert {"pictures/landscape/plane", "pictures/curves", "tables/failures"} <= row.keys()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (record / "landscape" / "plane.png").unlink()
    bring_up_to_date(parse(node), node, record)
    assert len(server.rows) == 1


def test_a_run_shown_as_failed_was_not_finished(record: Path, node: dict[str, Any], server: Server) -> None:
    summary = json.loads((record / "summary.json").read_text())
    failure = {"stage": "ibp", "kind": "error", "images": 1, "message": "no memory"}
    (record / "summary.json").write_text(json.dumps({**summary, "failures": [failure], "title": "a title"}))
    sync(record, node, Target("study"), offline=False)
    (record / "summary.json").unlink()
    sync(record, node, Target("study"), offline=False)
    assert server.codes == [1, 1]
    assert [given["name"] for given in server.runs] == ["a title", facts_of(node).title]


def test_a_file_of_rows_begins_with_those_that_a_resumed_run_has_behind_it(record: Path) -> None:
    rows = [row for row in read_rows(record / "metrics.jsonl") if row[0] < 20]
    for _ in range(2):  # what is there is written anew
        view = csv_view(record, "csv", 20)
        view.log_metrics({"train/loss": 1.5}, step=20)
        view.save()
    lines = (record / "csv" / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows) + 1


def test_runs_of_before_loggers_were_parts_are_read() -> None:
    assert Logger.model_validate({"name": "local"}) == Logger()
    known = Logger.model_validate({"name": "wandb", "project": "old", "group": None})
    assert known.wandb is not None
    assert (known.wandb.project, known.wandb.group) == ("old", None)
    assert known.csv is None


@pytest.mark.parametrize(
    ("package", "extra"), [("wandb", "wandb"), ("wandb_workspaces", "dashboard"), ("tensorboard", "tensorboard")]
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, package: str, extra: str) -> None:
    monkeypatch.setattr("certtrain.tracking.packages.find_spec", lambda name: None)
    name = package.replace("_", "-")
    with pytest.raises(ConfigError, match=rf'^it needs the package {name}: pip install "certtrain\[{extra}\]"$'):
        require(package, "it")


def test_a_run_that_was_told_nothing_goes_where_it_would(node: dict[str, Any]) -> None:
    bare = parse({**node, "logger": {}})
    assert target_of(bare) == Target("certtrain")
