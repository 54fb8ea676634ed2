"""Whatever stands at a key: one sentence in the words of the configuration, none of a library's."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from certtrain.cli.compose import Command, compose_jobs
from certtrain.cli.schema import Node, parse, plain
from certtrain.cli.study import read
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
