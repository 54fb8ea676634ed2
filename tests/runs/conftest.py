"""One run that all tests here read: own network, own loss and own arrays, by `certtrain.train`."""

import io
import os
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import certtrain

MODULE = """
from dataclasses import dataclass

from torch import nn

from certtrain.losses import Loss


class Net(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.layers(x)


@dataclass(frozen=True)
class Plain(Loss):
    weight: float = 1.0

    def per_image(self, problem, params, prepared):
        return self.weight * problem.cross_entropy(params, problem.inputs)
"""
QUICK = [
    *("method=grad", "relaxation=ibp", "trainer.max_steps=3", "hydra.run.dir=made"),
    *("certify.verifiers=[ibp]", "certify.limit=6", "certify.attack.steps=1", "certify.attack.restarts=1"),
]


@dataclass(frozen=True)
class Made:
    """A run, where it was made, what was printed meanwhile, and the module that its network is of."""

    run: certtrain.Run
    folder: Path
    printed: str
    module: object


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, code = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("code")
    (code / "certtrain_tests_own.py").write_text(MODULE, encoding="utf-8")
    sys.path.append(str(code))
    import certtrain_tests_own as own

    random = np.random.default_rng(0)
    images, labels = random.random((90, 4, 4)), np.arange(90) % 3
    images[labels == 1] *= 0.2
    before = os.getcwd()
    os.chdir(folder)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            run = certtrain.train(QUICK, model=partial(own.Net, width=5), loss=own.Plain(0.5), data=(images, labels))
    finally:
        os.chdir(before)
        sys.path.remove(str(code))
    return Made(certtrain.Run.load(folder / run.directory), folder, printed.getvalue(), own)
