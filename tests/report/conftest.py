"""A study that several tests collect."""

from pathlib import Path

import pytest
from report.runs import METHODS, RELAXATIONS, run


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
