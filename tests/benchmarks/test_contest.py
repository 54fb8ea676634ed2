"""Questions asked through files and a process each: answers, what is kept of them, and the audit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.vnncomp.__main__ import main, table
from benchmarks.vnncomp.contest import Answered, Contest, check_counterexample
from benchmarks.vnncomp.controllers import LOWER, UPPER, costs, networks, properties
from benchmarks.vnncomp.sets import Asked
from certtrain.certify.properties import Property, read_vnnlib
from certtrain.errors import ConfigError
from certtrain.networks.onnx import Runtime, from_onnx


def identity() -> nn.Module:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    return nn.Sequential(layer, nn.ReLU())


def first_above(limit: float) -> Property:
    """Unsafe: the first of two inputs in [0, 1] is at least a number."""
    row, constant = torch.tensor([[-1.0, 0.0]]), torch.tensor([-limit])
    return Property.from_constraints([0.0, 0.0], [1.0, 1.0], [(row, constant)])


def asked() -> Iterator[Asked]:
    stated = {"possible": first_above(0.5), "impossible": first_above(1.5)}
    yield Asked("identity", (2,), identity, lambda: stated)


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    return Contest(tmp_path_factory.mktemp("contest"), 30.0, 1)


@pytest.fixture(scope="module")
def answers(contest: Contest) -> list[Answered]:
    return list(contest.run(asked()))


def test_answers_are_found_audited_and_kept(contest: Contest, answers: list[Answered]) -> None:
    assert [(one.property, one.status) for one in answers] == [("possible", "sat"), ("impossible", "unsat")]
    assert not any(one.wrong for one in answers)
    assert list(contest.run(asked())) == answers, "not asked a second time"


def test_only_the_last_answer_to_a_question_stands(contest: Contest, answers: list[Answered]) -> None:
    once_more = replace(contest, again=frozenset(["sat"]))
    again = list(once_more.run(asked()))
    assert [one.seconds == before.seconds for one, before in zip(again, answers, strict=True)] == [False, True]
    assert list(contest.run(asked())) == again
    # What has become an error is asked again, though there is an older answer.
    contest._note(replace(again[1], status="error"))
    last = list(contest.run(asked()))
    assert (last[0], last[1].status) == (again[0], "unsat")
    assert last[1].seconds != again[1].seconds


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("network,property,limit\n")
    with pytest.raises(ConfigError, match="has not the columns network, property, limit, threads"):
        list(Contest(tmp_path, 1.0, 1).run([]))


def test_what_fails_is_no_answer(contest: Contest, answers: list[Answered]) -> None:
    assert len(answers) == 2
    other = replace(contest, limit=20.0)
    (contest.folder / "onnx" / "identity.onnx").rename(contest.folder / "away.onnx")
    try:
        assert [one.status for one in other.run(asked())] == ["error", "error"], "another limit is another question"
    finally:
        (contest.folder / "away.onnx").rename(contest.folder / "onnx" / "identity.onnx")


def test_wrong_proofs_and_points_are_noticed(contest: Contest, answers: list[Answered]) -> None:
    assert len(answers) == 2
    assert contest._audit("identity", "possible", "unsat", "unsat") == "an attack found a counterexample"
    path = contest.folder / "onnx" / "identity.onnx"
    model = from_onnx(path)
    runtime = Runtime.read(path, model)
    assert runtime is not None
    stated = read_vnnlib(contest.folder / "vnnlib" / "identity-possible.vnnlib", model.input_shape)
    assert check_counterexample("sat\n((X_0 0.75)\n(X_1 0.5))", stated, runtime) == ""
    safe, outside, incomplete = "sat\n((X_0 0.25)\n(X_1 0.5))", "sat\n((X_0 1.25)\n(X_1 0))", "sat\n((X_0 0.75))"
    for text in (safe, outside, incomplete):
        assert check_counterexample(text, stated, runtime) == "onnxruntime does not confirm the counterexample"


def test_the_table_counts() -> None:
    rows = [Answered("a", str(i), 3.0, 1, status, 2.0, "") for i, status in enumerate(("sat", "unsat", "timeout"))]
    rows.append(Answered("b", "0", 3.0, 1, "unsat", 2.0, "an attack found a counterexample"))
    rows.append(Answered("a", "late", 3.0, 1, "unsat", 3.5, ""))
    shown = table({"set": rows})
    columns = [list(column.cells) for column in shown.columns]
    assert [cells[0] for cells in columns] == ["a", "4", "3", "1", "1", "2", "2", "0", "2.0"]
    assert [cells[1] for cells in columns] == ["b", "1", "3", "0", "0", "0", "1", "1", ""]


def test_controllers_are_those_of_acas() -> None:
    assert len({name for name, _, _ in networks()}) == 45
    assert [name for name, _ in properties()] == [f"property_{i}" for i in (1, 2, 3, 4)]
    for _, stated in properties():
        (region,) = stated.regions
        assert (region.box.lower >= -0.5).all()
        assert (region.box.upper <= 0.5 + 1e-12).all()


def test_an_aeroplane_that_comes_straight_at_one_is_to_be_avoided() -> None:
    head_on = torch.tensor([[7200.0, 0.0, torch.pi, 600.0, 600.0]], dtype=torch.float64)
    straight, *turning = costs(head_on, 0, 0.0)[0].tolist()
    assert straight == pytest.approx(1.0)
    assert min(turning) < straight
    # Far away, and with time to climb, turning is what costs.
    far = torch.tensor([[60760.0, 0.0, 0.0, 100.0, 1200.0]], dtype=torch.float64)
    assert costs(far, 0, 100.0)[0].argmin() == 0
    assert (UPPER > LOWER).all()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only=mnist_fc,mnist"], "unknown set 'mnist': one of mnist_fc,"),
        (["--only=mnist_fc", "--networks=mnist_256x2,none"], "--networks: no network 'none' in mnist_fc"),
        (["--again=unsat,open"], "--again: 'open' is none of sat, unsat, timeout, unknown, error"),
        (["--seconds=nan"], "--seconds must be a positive number"),
        (["--only=mnist_fc", "--mnist=/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, f"--out={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line
