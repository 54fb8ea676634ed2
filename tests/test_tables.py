"""Tables that do not fit a terminal are lists, in which every figure is whole."""

import re
from io import StringIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from certtrain.tables import print_whole, show

PATH = "outputs/multirun/2026-01-01_00-00-00-123456/0"


def table() -> Table:
    found = Table(title="sweep [1]: what became of it", title_justify="left")
    for heading in ("job", "overrides", "certified %", "directory"):
        found.add_column(heading, justify="right" if heading == "certified %" else "left")
    found.add_row("0", "relaxation=ibp seed=0", Text("91.67"), Text(PATH))
    found.add_row("1", "relaxation=hbox seed=0", "", PATH)
    return found


def printed(width: int, *, terminal: bool = False) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=terminal, highlight=False)
    show(console, table())
    return re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())


def test_a_table_that_fits_is_one() -> None:
    assert re.search(rf"│ 0 +│ relaxation=ibp seed=0 +│ +91.67 │ {PATH} │", printed(120))


def test_a_column_of_words_may_break_between_them() -> None:
    lines = [line for line in printed(90).splitlines() if line.startswith("│")]
    assert max(map(cell_len, lines)) <= 90
    assert sum(PATH in line for line in lines) == 2


def test_one_that_does_not_fit_is_a_list_of_whole_cells() -> None:
    for width in (80, 50, 20):
        lines = printed(width, terminal=True).splitlines()
        assert "│" not in "".join(lines)
        assert {"0", "1", f"  directory {PATH}"} <= set(lines)
        assert all(len(line) <= width or line.strip().startswith(("directory", "overrides", "sweep")) for line in lines)
    assert "  overrides relaxation=ibp seed=0  certified % 91.67" in printed(80).splitlines()
    assert printed(80).count("certified %") == 1, "an empty cell says nothing"


def test_a_file_gets_whole_columns_however_many_there_are() -> None:
    wide = Table(*[f"heading{number}" for number in range(40)])
    wide.add_row(*[f"value{number}" for number in range(40)])
    console = Console(file=StringIO(), width=80)
    print_whole(console, wide)
    assert all(f"heading{number}" in console.file.getvalue() for number in range(40))
    assert all(f"value{number}" in console.file.getvalue() for number in range(40))
    assert "\x1b" not in console.file.getvalue()
