"""Dependencies point one way: a room imports what is below it, and nothing above or beside it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import certtrain

ROOT = Path(certtrain.__file__).parent
# From top to bottom; rooms of one line do without each other.
ROOMS = (
    ("runs",),
    ("cli",),
    ("tracking", "tuning", "testing"),
    ("report",),
    ("analysis",),
    ("certify",),
    ("training",),
    ("losses", "gradients", "data", "sweep"),
    ("attacks",),
    ("bounds",),
    ("networks",),
    ("activations",),
)
OF_CLI = (
    ("commands",),
    ("trained",),
    ("job",),
    ("estimates",),
    ("assembly",),
    ("rundir", "help"),
    ("configuration", "process"),
)


def imports(file: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize(("package", "rooms"), [("certtrain", ROOMS), ("certtrain.cli", OF_CLI)])
def test_rooms_import_what_is_below_them(package: str, rooms: tuple[tuple[str, ...], ...]) -> None:
    folder = ROOT.joinpath(*package.split(".")[1:])
    height = {room: number for number, line in enumerate(reversed(rooms)) for room in line}
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == height.keys()
    wrong = []
    for room in height:
        for file in sorted((folder / room).rglob("*.py")):
            for name in imports(file):
                other = name.removeprefix(f"{package}.").partition(".")[0]
                ours = name.startswith(f"{package}.") and other in height
                if ours and other != room and height[other] >= height[room]:
                    wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_rooms_of_the_command_line_are_entered_for_nothing() -> None:
    """What `--help` and a shell's completion need is there without what their neighbours import."""
    folders = [ROOT / "cli", *(ROOT / "cli" / room for line in OF_CLI for room in line)]
    assert [folder.name for folder in folders if list(imports(folder / "__init__.py"))] == []
