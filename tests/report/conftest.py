"""A study that several tests collect."""

from pathlib import Path

import pytest
from report.full import full_study
from report.runs import METHODS, RELAXATIONS, run

from certtrain.cli.commands.report import ReportOptions, write


@pytest.fixture(scope="session")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study that has everything; nothing of it is changed."""
    return write([full_study(tmp_path_factory.mktemp("study"))], ReportOptions(images=3))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for i, method in enumerate(METHODS):
        for j, relaxation in enumerate(RELAXATIONS):
            for seed in range(3):
                run(tmp_path / "methods", method, relaxation, seed, 0.5 + 0.1 * i + 0.05 * j + 0.02 * seed)
    for sigma in (0.02, 0.1):
        for seed in range(3):
            run(tmp_path / "sigma", "pgpe", "deeppoly", seed, 0.4 + 0.01 * seed, pgpe__sigma=sigma)
    for seed in range(3):
        run(tmp_path / "population", "pgpe", "deeppoly", seed, 0.3, pgpe__population_size=16)
    return tmp_path
