"""docs/how-to/certify-onnx.md: what it says can be typed, in this order."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "certify-onnx.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_all_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert {kind for kind, _ in blocks} == {"python", "sh", ""}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    names: dict[str, object] = {}
    output = ""
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        elif kind == "sh":
            done = subprocess.run(["sh", "-ec", text], env={**os.environ, "PATH": path}, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            output += done.stdout
    assert output.splitlines()[-1] == "unsat"
    assert output.startswith("unsat in ")
