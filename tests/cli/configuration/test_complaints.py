"""Whatever stands at a key: one sentence in the words of the configuration, none of a library's."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from config_reads import part_of
from pydantic import BaseModel, ValidationError

from certtrain.cli.commands.study import StudyFile, read
from certtrain.cli.configuration.complaints import SENTENCES
from certtrain.cli.configuration.compose import Command, compose_jobs
from certtrain.cli.configuration.schema import Node, RunConfig, parse, plain
from certtrain.errors import ConfigError

WRONG = (None, "text", "2/255", -1, 0.5, 10**400, float("nan"), True, [], [[]], {}, {"a": 1}, b"\xff", {1: 2})
# Of pydantic and Python.
FOREIGN = re.compile(
    r"Input|instance|[Tt]uple|dictionary|after validation|should|\bList\b|NoneType|\bstr\b|\bint\b|Error"
)


@pytest.fixture(scope="module")
def node() -> Node:
    overrides = ("method=pgpe", "trainer=ddp", "logger=wandb")
    (job,) = compose_jobs(Command(overrides, False, False))
    return plain(job)


def places(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


def with_value(node: Node, path: tuple[str, ...], value: Any) -> Node:
    head, *rest = path
    return {**node, head: with_value(node[head], tuple(rest), value) if rest else value}


def test_no_complaint_is_in_a_librarys_words(node: Node) -> None:
    complaints = []
    for path in places(node):
        for value in WRONG:
            try:
                parse(with_value(node, path, value))
            except ConfigError as error:
                complaints.append(str(error))
    assert len(complaints) > 500
    for complaint in complaints:
        text = complaint.partition(", got ")[0]
        assert not FOREIGN.search(text), text
        assert "\n" not in text
        assert len(complaint) < 300


# A constraint of a field -> a value that it alone forbids, and what is said.
FORBIDDEN: dict[type, Callable[[Any], tuple[float, str]]] = {
    Ge: lambda c: (c.ge - 2, f"must be greater than or equal to {c.ge}"),
    Gt: lambda c: (c.gt, f"must be greater than {c.gt}"),
    Le: lambda c: (c.le + 1, f"must be less than or equal to {c.le}"),
    Lt: lambda c: (c.lt, f"must be less than {c.lt}"),
    MultipleOf: lambda c: (3, "must be even"),
}


def ranges(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every constraint that is declared of a number, with the path of its key."""
    for name, field in model.model_fields.items():
        part = part_of(field)
        if part is not None:
            yield from ranges(part, (*prefix, name))
        # Of a number that may be null, the number is constrained.
        yield from (((*prefix, name), c) for c in field.metadata if type(c) in FORBIDDEN)


def test_every_range_that_is_declared_is_checked(node: Node) -> None:
    """By itself: no other check has refused the value before."""
    (job,) = compose_jobs(Command(("method=rgs",), False, False))
    nodes = {"pgpe": node, "rgs": plain(job)}
    declared = list(ranges(RunConfig))
    assert len(declared) > 40
    for path, constraint in declared:
        value, message = FORBIDDEN[type(constraint)](constraint)
        with pytest.raises(ConfigError) as caught:
            parse(with_value(nodes.get(path[0], node), path, value))
        assert str(caught.value).startswith(f"{'.'.join(path)} {message}"), path


def test_every_sentence_is_said(node: Node) -> None:
    """None is kept for an error that does not happen."""
    said = set()
    for model, valid in ((RunConfig, node), (StudyFile, {"directory": "x", "common": [], "sweeps": {"a": []}})):
        for path in places(valid):
            for value in (*WRONG, [1, 2, 3]):
                try:
                    model.model_validate(with_value(valid, path, value))
                except ValidationError as error:
                    said.add(error.errors()[0]["type"])
    assert set(SENTENCES) - said == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"3", "all of it must be a node with keys of its own, got 3"),
        (b"", "all of it must be a node with keys of its own, got None"),
        (b"directory: x\ncommon: []\nsweeps: {}", "sweeps must have at least 1 entry, got {}"),
        (b"directory: x\ncommon: []\nsweeps: {a: 3}", "sweeps.a must be a list, as in .a,b., got 3"),
        (b"directory: \xff", "is no text: "),
        (b"[" * 5000, "study.yaml is no "),
    ],
)
def test_a_study_that_is_none(tmp_path, text: bytes, message: str) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "study.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
