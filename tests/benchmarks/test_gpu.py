"""The section for GPUs: its rows are made on any device, and without a card it is one line."""

from pathlib import Path

import pytest
import torch
from rich.table import Table

from benchmarks import gpu, ready
from benchmarks.cases import Bench
from benchmarks.methods import METHODS, OWN
from benchmarks.settings import Settings


def bench(out: Path) -> Bench:
    return Bench(Settings(("gpu",), True, "none", out, None, False), lambda text: None)


def test_every_relaxation_and_both_ways_of_a_population_are_measured(tmp_path: Path) -> None:
    rows = gpu.measure(bench(tmp_path), torch.device("cpu"))
    alone = [row for row in rows if row.members == 1]
    assert {row.what for row in alone} == {method.name for method in (*METHODS.values(), *OWN)}
    assert {row.grad for row in alone} == {False, True}
    assert all(row.difference == 0 for row in alone if not row.grad), "the CPU against itself"
    assert [row.what for row in rows if row.members > 1] == ["deeppoly losses, vmap", "deeppoly losses, loop"]
    table = gpu.table(rows)
    assert isinstance(table, Table)
    assert table.row_count == len(rows)


def test_without_a_card_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.table(gpu.run(bench(tmp_path))["gpu"]) == "gpu: torch sees no CUDA device, nothing to measure"


def test_what_an_environment_lacks_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ready.missing() == []
    assert ready.main() == 0
    installed = ready._installed
    monkeypatch.setattr(ready, "_installed", lambda name: name not in ("rich", "pytest-timeout") and installed(name))
    assert ready.main() == 1
    assert capsys.readouterr().err.endswith("-m pip install 'rich>=13.7' 'pytest-timeout'\n")
    monkeypatch.setattr(ready, "_installed", lambda name: name != "torch")
    assert ready.main() == 1
    assert "has no torch" in capsys.readouterr().err
