"""The example of docs/extend/loss.md works as it stands there."""

import importlib
import re
from pathlib import Path

import pytest

import certtrain
from certtrain.cli.assemble import make_network, make_source, make_training
from certtrain.cli.compose import Command, compose_jobs
from certtrain.cli.preflight import check_parts
from certtrain.cli.schema import parse, plain
from certtrain.testing import check_loss

PAGE = Path(certtrain.__file__).parents[1] / "docs" / "extend" / "loss.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not installed")
def test_the_page_makes_a_loss_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", text, re.DOTALL))
    (tmp_path / "hinge.py").write_text(blocks["python"], encoding="utf-8")
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "hinge.yaml").write_text(blocks["yaml"], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (command,) = re.findall(r"--config-dir=FOLDER (.*)\n", text)
    (job,) = compose_jobs(Command(tuple(command.split()), False, False, tmp_path))
    config = parse(plain(job))
    check_parts(config)
    made = make_training(config, *make_network(config, make_source(config))).objective.loss
    assert isinstance(made, importlib.import_module("hinge").Hinge)
    assert made.attack.steps == 4
    check_loss(made)
