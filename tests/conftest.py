"""Shape annotations of certtrain are checked while the tests run; data that only some machines have is found here."""

import os
import sys
from pathlib import Path

# Tests are many small calls: threads that wait for each other cost five times what they gain. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping
import pytest
import torch
from jaxtyping import install_import_hook
from stated_shapes import with_shapes

torch.set_num_threads(1)
install_import_hook(with_shapes(), "beartype.beartype")


@pytest.fixture(autouse=True)
def usual_recursion_limit() -> None:
    """As in a process of its own: libraries that tests import raise it, and C code then overflows its stack instead."""
    sys.setrecursionlimit(1000)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without pictures and a page: of a run of two steps they are most of the time."""
    monkeypatch.setattr("certtrain.cli.job.conclusion.write_report", lambda directory: directory / "report.html")


SHARED_MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


@pytest.fixture
def as_users_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotations are not checked, as outside of these tests: what is passed reaches our own checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """A local copy of MNIST in the hub's layout, beside the project."""
    if not SHARED_MNIST.is_dir():
        pytest.skip("no MNIST at ../shared/data/mnist")
    return SHARED_MNIST
