"""Terminals that know few characters."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from certtrain.cli.process import output


@pytest.fixture(params=["ascii", "latin-1", "cp1252", "utf-8"])
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.TextIOWrapper:
    made = io.TextIOWrapper(io.BytesIO(), encoding=request.param)
    monkeypatch.setattr("sys.stdout", made)
    output.tolerate_any_encoding()
    return made


def written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode(stream.encoding)  # type: ignore[attr-defined]


def test_everything_can_be_printed(stream: io.TextIOWrapper) -> None:
    print("5 ± 1 – größe … 图 \udcff", file=stream)
    expected = {
        "ascii": "5 +- 1 - gr??e ... ? ?",
        "latin-1": "5 ± 1 - größe ... ? ?",
        "cp1252": "5 ± 1 – größe … ? ?",
        "utf-8": "5 ± 1 – größe … 图 ?",
    }
    assert written(stream).strip() == expected[stream.encoding]


def test_tables_have_lines_that_the_terminal_knows(stream: io.TextIOWrapper) -> None:
    table = Table("certified", title="mean ± deviation")
    table.add_row("12 ± 3")
    Console(file=stream, width=40).print(table)
    shown = written(stream)
    assert "certified" in shown
    assert "?" not in shown
