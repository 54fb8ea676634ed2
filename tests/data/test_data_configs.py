from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from certtrain.data.augment import Augmentation
from certtrain.data.digits import DigitsSource
from certtrain.data.huggingface import HuggingFaceSource
from certtrain.data.module import ImageData

ALL = sorted((Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"))
# Those that say where data are, and find out what they are: tests/data/test_measuring.py.
MEASURED = {"arrays", "folder", "hub"}
FILES = [file for file in ALL if file.stem not in MEASURED]


def node(file):
    return OmegaConf.create({"data": OmegaConf.load(file)}).data


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_data_set_can_be_instantiated(file):
    config = node(file)
    source = instantiate(config.source)
    assert source.name == config.name == file.stem
    rest = {key: config[key] for key in config if key not in ("name", "source", "path", "augment")}
    data = ImageData(source, augment=Augmentation(**config.augment), seed=0, **rest)
    assert data.source.path is None


@pytest.mark.parametrize("file", ALL, ids=lambda file: file.stem)
def test_the_first_line_says_what_it_is(file):
    first = file.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")
    assert len(first) < 100


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_path_reaches_the_source(file):
    config = node(file)
    config.path = "/somewhere"
    assert instantiate(config.source).path == "/somewhere"


def test_the_data_sets_are_these():
    found = {file.stem: (instantiate(node(file).source)) for file in FILES}
    assert set(found) == {"digits", "mnist", "fashion_mnist", "cifar10", "tiny_imagenet"}
    assert isinstance(found.pop("digits"), DigitsSource)
    assert all(isinstance(source, HuggingFaceSource) for source in found.values())


def test_mnist_can_be_trained_on(mnist, monkeypatch):
    config = node(next(file for file in FILES if file.stem == "mnist"))
    monkeypatch.setattr(HuggingFaceSource, "load", lambda self: mnist)
    data = ImageData(
        instantiate(config.source),
        config.batch_size,
        config.test_batch_size,
        config.validation,
        config.split_seed,
        config.max_duplicates,
        Augmentation(**config.augment),
        seed=0,
    )
    data.setup()
    assert len(data.train_rows) == 54_000
    assert len(data.train_dataloader()) == 54_000 // config.batch_size
    share = data.splits.train.labels[data.validation_rows].bincount() - data.splits.train.labels.bincount() / 10
    assert share.abs().max() < 1
