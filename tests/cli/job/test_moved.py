"""A run that is stopped, whose data are moved, goes on with them: by processes, as users do it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RUN = (
    *("data=arrays", "model=mlp", "model.widths=[4]", "method=grad", "relaxation=ibp", "data.validation=0.25"),
    *("data.batch_size=8", "scheduler=constant", "certify.enabled=false"),
)


def command(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "certtrain", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write(path: Path, order: np.ndarray) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(50) % 10
    np.savez(
        path,
        train_images=images[:40][order],
        train_labels=labels[:40][order],
        test_images=images[40:],
        test_labels=labels[40:],
    )


@pytest.mark.slow
def test_the_same_images_in_another_folder_and_others_under_either(tmp_path: Path) -> None:
    there, here, shuffled = tmp_path / "there.npz", tmp_path / "here.npz", tmp_path / "shuffled.npz"
    write(there, np.arange(40))
    write(shuffled, np.arange(40)[::-1])
    begun = command(tmp_path, *RUN, "data.path=there.npz", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert begun.returncode == 0, begun.stderr
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    more = ("resume=run", "trainer.max_epochs=2")

    refused = command(tmp_path, *more, "data.path=shuffled.npz")
    assert refused.returncode != 0
    assert "the training images, or their order, are not those of the checkpoint" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert last.read_bytes() == before
    assert "there.npz" in (tmp_path / "run" / "config.yaml").read_text()
    assert not (tmp_path / "run" / "earlier").exists()

    there.rename(here)
    moved = command(tmp_path, *more, "data.path=here.npz")
    assert moved.returncode == 0, moved.stderr
    assert "data.path there.npz -> here.npz: training goes on if the images are the same" in moved.stdout
    assert json.loads((tmp_path / "run" / "origin.json").read_text())["overrides"][-1] == "data.path=here.npz"

    shuffled.replace(here)
    changed = command(tmp_path, "resume=run", "trainer.max_epochs=3")
    assert changed.returncode != 0
    assert "set data.path to the data that the run began with" in changed.stderr
