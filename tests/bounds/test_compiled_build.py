"""How the compiled code comes to be there, and what happens where it does not."""

import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cases import make_case, needs_compiler

from certtrain.bounds import build
from certtrain.bounds.executors.compiled import build as build_module
from certtrain.bounds.executors.compiled import cache


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Compilation as in a new process, before and after the test."""
    forget()
    yield
    forget()


def forget() -> None:
    for known in (build_module.compiled, build_module.bundlers, build_module._warn):
        known.cache_clear()


@pytest.fixture
def umask() -> Iterator[None]:
    """That of systems where every user has a group of their own."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("compiled-*/*"))


WARNINGS = {
    "no compiler": "several times as long: there is no C compiler",
    "a compiler that fails": "--no-such-flag",
    "no folder": "Not a directory",
    "another user's folder": "belongs to somebody else; CERTTRAIN_CACHE names another folder",
}


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    "reason", ["no compiler", "a compiler that fails", "no folder", "another user's folder", "switched off"]
)
def test_without_compiled_code_bounds_are_the_same(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    case = make_case("strided")
    expected = build("deeppoly").bound(case.graph, case.params, case.box(0.05), case.spec).lower
    forget()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    match reason:
        case "no compiler":
            monkeypatch.setenv("PATH", str(tmp_path))
            monkeypatch.delenv("CC", raising=False)
        case "a compiler that fails":
            monkeypatch.setattr(build_module, "FLAGS", ("--no-such-flag",))
        case "no folder":
            (tmp_path / "cache").write_text("a file where a folder should be")
        case "another user's folder":
            user = os.getuid() + 1
            monkeypatch.setattr(os, "getuid", lambda: user)
        case "switched off":
            monkeypatch.setenv(cache.VARIABLE, "")
    with caplog.at_level(logging.INFO):
        assert build_module.compiled(torch.float64) is None
        assert build_module.compiled(torch.float32) is None
    assert [record.levelno for record in caplog.records] == ([] if reason == "switched off" else [logging.WARNING])
    assert all("\n" not in record.getMessage() for record in caplog.records)
    assert all(WARNINGS[reason] in record.getMessage() for record in caplog.records)
    problem = make_case("strided")
    found = build("deeppoly").bound(problem.graph, problem.params, problem.box(0.05), problem.spec).lower
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_type_that_there_is_no_code_for_is_told(
    forgotten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    assert build_module.compiled(torch.bfloat16) is None
    assert "there is none for torch.bfloat16" in caplog.text


@needs_compiler
@pytest.mark.usefixtures("forgotten", "umask")
def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write in the folder that was given: the code lies in one of its own."""
    tmp_path.chmod(0o775)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    assert build_module.compiled(torch.float32) is not None
    (library,) = kept(tmp_path)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (library, library.parent)] == [0o700, 0o700]
    written = library.stat().st_mtime_ns
    forget()
    assert build_module.compiled(torch.float32) is not None
    assert [file.stat().st_mtime_ns for file in kept(tmp_path)] == [written]


DAMAGES = ["cut off", "emptied", "changed", "written by others"]


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_as_it_was_made_is_made_again(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    made = []

    def make(path: Path) -> None:
        path.write_bytes(b"code" * 1000)
        made.append(path)

    library = cache.fetch("name", make)
    assert cache.fetch("name", make) == library
    assert len(made) == 1
    match damage:
        case "cut off":
            os.truncate(library, 2000)
        case "emptied":
            os.truncate(library, 0)
        case "changed":
            library.write_bytes(b"edoc" * 1000)
        case "written by others":
            library.chmod(0o775)
    assert cache.fetch("name", make) == library
    assert len(made) == 2
    assert kept(tmp_path) == [library]
    assert library.read_bytes() == b"code" * 1000
    assert stat.S_IMODE(library.stat().st_mode) == 0o700


def test_a_library_that_could_not_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))

    def make(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        cache.fetch("name", make)
    assert kept(tmp_path) == []


@needs_compiler
def test_a_truncated_library_does_not_end_a_process(tmp_path: Path) -> None:
    """A process of its own: loading it would raise SIGBUS, which nothing can catch."""
    assert build_module.compiled(torch.float32) is not None
    shutil.copytree(cache.private_folder(), tmp_path / cache.private_folder().name)
    for library in kept(tmp_path):
        os.truncate(library, 5000)
    command = [
        sys.executable,
        "-c",
        "import torch; from certtrain.bounds.executors.compiled.build import compiled; compiled(torch.float32)",
    ]
    done = subprocess.run(command, env={**os.environ, cache.VARIABLE: str(tmp_path)}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert max(library.stat().st_size for library in kept(tmp_path)) > 5000
