from pathlib import Path

import pytest

from certtrain.data.huggingface import HuggingFaceSource
from certtrain.data.source import Splits

MNIST = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mnist"


@pytest.fixture(scope="session")
def hugging_face_cache(tmp_path_factory):
    """Keeps what `datasets` writes out of the user's cache; it reads its environment only when imported."""
    import datasets

    folder = tmp_path_factory.mktemp("hugging_face")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """What is decoded is kept for one test, and never what an earlier version of the code has decoded."""
    monkeypatch.setenv("CERTTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def mnist(hugging_face_cache) -> Splits:
    """MNIST as it is published, where a copy lies beside the repository."""
    if not MNIST.is_dir():
        pytest.skip(f"no MNIST in {MNIST}")
    source = HuggingFaceSource(
        name="mnist",
        shape=(1, 28, 28),
        num_classes=10,
        mean=(0.1307,),
        std=(0.3081,),
        hub="ylecun/mnist",
        image_column="image",
        label_column="label",
        train_split="train",
        test_split="test",
        path=str(MNIST),
    )
    source.check()
    return source.load()
