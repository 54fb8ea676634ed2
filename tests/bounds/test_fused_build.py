"""How the compiled code comes to be there, and what happens where it does not."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cases import make_case, needs_compiler

from certtrain.bounds import build, fused
from certtrain.bounds.fused import build as build_module


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Compilation as in a new process, before and after the test."""
    caches = build_module.compiled, build_module.bundlers
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("reason", ["no compiler", "a compiler that fails", "no folder", "switched off"])
def test_without_compiled_code_bounds_are_the_same(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    case = make_case("strided")
    expected = build("deeppoly").bound(case.graph, case.params, case.box(0.05), case.spec).lower
    build_module.compiled.cache_clear()
    monkeypatch.setenv(build_module.CACHE_VARIABLE, str(tmp_path / "cache"))
    match reason:
        case "no compiler":
            monkeypatch.setenv("PATH", str(tmp_path))
            monkeypatch.delenv("CC", raising=False)
        case "a compiler that fails":
            monkeypatch.setattr(build_module, "FLAGS", ("--no-such-flag",))
        case "no folder":
            (tmp_path / "cache").write_text("a file where a folder should be")
        case "switched off":
            monkeypatch.setenv(build_module.CACHE_VARIABLE, "")
    with caplog.at_level(logging.INFO):
        assert fused.compiled(torch.float64) is None
    assert (len(caplog.records) == 1) == (reason != "switched off")
    assert all("\n" not in record.getMessage() for record in caplog.records)
    problem = make_case("strided")
    found = build("deeppoly").bound(problem.graph, problem.params, problem.box(0.05), problem.spec).lower
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@needs_compiler
@pytest.mark.usefixtures("forgotten")
def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build_module.CACHE_VARIABLE, str(tmp_path))
    assert fused.compiled(torch.float32) is not None
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    build_module.compiled.cache_clear()
    assert fused.compiled(torch.float32) is not None
    assert [file.stat().st_mtime_ns for file in tmp_path.iterdir()] == [written]
