"""Files of a run that something else has written to: one line that names the file and the way out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from certtrain.certify.ledger import Ledger, read_ledger
from certtrain.cli.commands.certify import certify_command
from certtrain.cli.commands.export import export_command
from certtrain.cli.commands.landscape import landscape_command
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import Node, plain
from certtrain.cli.rundir.directory import RunDirectory
from certtrain.cli.rundir.resume import Place, find_place
from certtrain.errors import CerttrainError, ConfigError
from certtrain.report.summary import read_summary
from certtrain.sweep import record
from certtrain.sweep.jobs import certified_accuracy
from certtrain.tracking.identity import begin_identity
from certtrain.training.checkpoints import network_state, read_checkpoint
from certtrain.training.metrics import drop_rows
from certtrain.training.survival import reached_step

SMALL = ("method=grad", "relaxation=ibp")
GARBAGE = {
    "empty": b"",
    "text": b"once upon a time\n",
    "binary": bytes(range(256)) * 4,
    "not UTF-8": b'{"step": 1, "a": "\xff\xfe"}\n',
    "number": b"3\n",
    "null": b"null\n",
    "list": b"[1, 2]\n",
    "other object": b'{"a": 1}\n',
    "other types": b'{"step": "x", "jobs": 3, "status": [], "seed": {}, "certified_accuracy": "high"}\n',
    "a date that is none": b"a: 2026-99-99\n",
    "interpolation": b"a: ${nope}\nb: ${\n",
    "deep": b"[" * 100_000,
    "accounts": b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n",
    "cut off": b"PK\x03\x04" + bytes(200),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def composed() -> tuple[Any, Node]:
    (job,) = compose_jobs(Command(SMALL, False, False))
    return job, plain(job)


def begun(path: Path, node: Node) -> Path:
    (path / "checkpoints").mkdir(parents=True)
    RunDirectory(path).write_configuration(node)
    torch.save({"global_step": 7}, path / "checkpoints" / "last.ckpt")
    return path


def open_ledger(file: Path) -> None:
    Ledger(file, {"eps": 0.1})


def judge_with_damaged_settings(file: Path) -> None:
    row = {"index": 0, "image": "x", "label": 1, "predicted": 1, "status": "verified"}
    ledger = file.with_name("ledger.jsonl")
    ledger.write_text(json.dumps(row) + "\n")
    file.rename(file.with_name("ledger.meta.json"))
    Ledger(ledger, {"eps": 0.1})


READERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("last.ckpt", read_checkpoint),
    ("last.ckpt", reached_step),
    ("last.ckpt", network_state),
    ("metrics.jsonl", lambda file: drop_rows(file, 5)),
    ("ledger.jsonl", read_ledger),
    ("ledger.jsonl", open_ledger),
    ("ledger.meta", judge_with_damaged_settings),
    ("summary.json", read_summary),
    ("sweep.json", lambda file: record.read(file.parent)),
    ("wandb_id.txt", lambda file: begin_identity(file.parent)),
]


# Of these a last line that is not complete, as a killed process leaves it, is dropped.
APPENDED = ("metrics.jsonl", "ledger.jsonl")
HARMLESS = {
    ("summary.json", "other object"),
    *(("wandb_id.txt", kind) for kind in ("number", "null")),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize(("name", "reader"), READERS)
def test_what_is_damaged_is_named_in_one_line(
    tmp_path: Path, name: str, reader: Callable[[Path], Any], kind: str
) -> None:
    file = tmp_path / name
    file.write_bytes(GARBAGE[kind])
    if (name, kind) in HARMLESS or (name in APPENDED and b"\n" not in GARBAGE[kind]):
        reader(file)
        return
    with pytest.raises(CerttrainError) as caught:
        reader(file)
    assert str(tmp_path / name.split(".")[0]) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_damaged_configuration_concerns_no_other_run(composed: tuple[Any, Node], kind: str) -> None:
    run = begun(Path("outputs/2026-01-01/10-00-00-1"), composed[1])
    assert find_place(*composed) == Place(run)
    other = Path("outputs/2026-01-02/10-00-00-1")
    other.mkdir(parents=True)
    (other / "config.yaml").write_bytes(GARBAGE[kind])
    assert find_place(*composed) == Place(run)
    (other / "summary.json").write_bytes(GARBAGE[kind])
    assert certified_accuracy(other) is None


@pytest.mark.parametrize("command", [certify_command, export_command, landscape_command], ids=lambda c: c.__name__)
def test_a_configuration_that_lacks_a_key_is_named(
    tmp_path: Path, composed: tuple[Any, Node], command: Callable[[list[str]], None]
) -> None:
    begun(tmp_path / "run", {key: value for key, value in composed[1].items() if key != "model"})
    with pytest.raises(ConfigError, match="run/config.yaml: missing key 'model'"):
        command([str(tmp_path / "run")])


def test_a_damaged_checkpoint_names_the_ways_out(composed: tuple[Any, Node]) -> None:
    run = begun(Path("outputs/2026-01-01/10-00-00-1"), composed[1])
    (run / "checkpoints" / "last.ckpt").write_bytes(GARBAGE["text"])
    with pytest.raises(ConfigError, match=r"last\.ckpt is no checkpoint .*resume=never begins a new run"):
        find_place(*composed)
    never = {**composed[1], "resume": "never"}
    assert find_place(composed[0], never) == Place()


def test_nothing_is_cut_off_a_damaged_record(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    text = '{"step": 0}\nnonsense\n{"step": 2}\n'
    file.write_text(text)
    with pytest.raises(CerttrainError, match=r"metrics.jsonl is damaged: line 2 .* resume=never begins a new one"):
        drop_rows(file, 3)
    assert file.read_text() == text
