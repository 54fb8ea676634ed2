"""Files that are replaced, and a disk that is full."""

from pathlib import Path

import pytest
import torch

from certtrain.files import naming, replacing
from certtrain.training.checkpoints import AtomicCheckpointIO

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@needs_full
def test_a_full_disk_names_the_file() -> None:
    with pytest.raises(OSError, match=r"No space left on device: 'metrics.jsonl'"), naming(Path("metrics.jsonl")):
        FULL.write_text("x")
    with pytest.raises(OSError, match=r"No such file or directory: 'nowhere'"), naming(Path("metrics.jsonl")):
        Path("nowhere").read_text()


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    with replacing(file) as partial:
        partial.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(file) as partial:
        partial.write_text("new \udcff", encoding="utf-8")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*last.ckpt'"):
            AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(9999)}, tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
