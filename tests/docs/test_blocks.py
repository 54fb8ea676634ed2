"""Every block of code in the documentation works: Python is run, commands are run or checked, files are written.

The blocks of a page share a folder and, in Python, their names, as they do for a reader who types them in order.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import (
    COMMANDS_IN,
    NOT_CODE,
    PAGES,
    REPOSITORY,
    Block,
    blocks_of,
    check_command,
    check_yaml,
    commands_in,
)

pytestmark = pytest.mark.skipif(not (REPOSITORY / "docs").is_dir(), reason="the documentation is not installed")


def shell(text: str) -> None:
    """Runs commands as a reader's shell would; the first that fails ends it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(["bash", "-ec", text], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def perform(block: Block, names: dict[str, object], page: Path, *, slow: bool) -> None:
    """Does with a block what its reader does."""
    if block.mark.startswith("not run"):
        return
    if block.title is not None:
        Path(block.title).parent.mkdir(parents=True, exist_ok=True)
        Path(block.title).write_text(block.text, encoding="utf-8")
    elif block.kind == "python":
        code = compile("\n" * block.line + block.text, str(page), "exec")
        if slow or block.mark != "run slow":
            exec(code, names)
    elif block.kind in COMMANDS_IN:
        for words in commands_in(block.text):
            check_command(words)
        if block.mark == "run" or (slow and block.mark == "run slow"):
            shell(block.text)
    elif block.kind == "yaml":
        check_yaml(block.text)
    elif block.kind == "" and block.text.startswith("python -m certtrain "):
        for words in commands_in(block.text):
            check_command(words)
    else:
        assert block.kind in NOT_CODE, f"a block of the kind '{block.kind}': say bash, python, yaml or text"
        assert "\npython -m certtrain " not in "\n" + block.text, "commands belong into a block of the kind bash"


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_users_call: None) -> dict[str, object]:
    """An empty folder, from which modules are imported; what they leave behind is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = set(sys.modules)
    names: dict[str, object] = {"__name__": "__main__"}
    yield names
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def read(text: str, names: dict[str, object], page: Path = Path("page.md"), *, slow: bool = False) -> None:
    """Does what a page says, from its beginning to its end."""
    for block in blocks_of(text):
        try:
            perform(block, names, page, slow=slow)
        except Exception as error:
            raise AssertionError(f"{page}, line {block.line}: {error}") from error


def _slow(page: Path) -> bool:
    return "<!-- run slow -->" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_says_can_be_typed(page: Path, reader: dict[str, object]) -> None:
    read(page.read_text(encoding="utf-8"), reader, page)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", filter(_slow, PAGES), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_takes_long_can_be_typed_too(page: Path, reader: dict[str, object]) -> None:
    read(page.read_text(encoding="utf-8"), reader, page, slow=True)


WRONG = {
    "```bash\npython -m certtrain pgpe.sgima=1\n```": "unknown key",
    "```bash\npython -m certtrain -m relaxation=ibp,nope\n```": "unknown relaxation",
    "```bash\nsrun --nodes 2 python -m certtrain trainer=dpd\n```": "unknown trainer",
    "```bash\npython -m certtrain collect --nothing DIR\n```": "unrecognized arguments",
    "```bash\npython -m certtrain certify RUN certify.tmeout_s=1\n```": "unknown key",
    "```bash\npython -m certtrain landscape RUN sigmaz=[1]\n```": "unknown key",
    '```bash\npip install "certtrain[nothing]"\n```': "no extra",
    "```bash\nmake nothing\n```": "no such target",
    "```python\n1 / 0\n```": "division by zero",
    "<!-- run slow -->\n```python\n1 /\n```": "invalid syntax",
    "```\npython -m certtrain epz=0.1\n```": "unknown key",
    "```text\npython -m certtrain eps=0.1\n```": "of the kind bash",
    "    python -m certtrain eps=0.1\n": "put commands into a fence",
    "```yaml\na: [1\n```": "expected",
    "<!-- run -->\nText.\n": "stands above no block",
    "```bash\n": "does not end",
    "<!-- run -->\n```bash\nfalse\n```": "false",
}


@pytest.mark.parametrize("text", WRONG, ids=WRONG.values())
def test_what_cannot_be_typed_is_found(text: str, reader: dict[str, object]) -> None:
    with pytest.raises((AssertionError, ValueError), match=WRONG[text]):
        read(text, reader)


def test_a_titled_block_is_a_file_and_a_reason_leaves_one_out(reader: dict[str, object]) -> None:
    text = '```python title="own/thing.py"\nVALUE = 7\n```\n'
    text += "<!-- not run: needs a cluster -->\n```bash\nmake nothing\n```\n"
    text += "```python\nfrom own.thing import VALUE\n\nfound = VALUE\n```\n"
    read(text, reader)
    assert reader["found"] == 7
