"""Images and labels as arrays: what they may look like, where they are kept, and what is wrong with others."""

import re

import numpy as np
import pytest
import torch

from certtrain.data.arrays import ArraySource, as_pair, measure, read_arrays, store_arrays
from certtrain.data.source import ArrayPair, Splits
from certtrain.errors import ConfigError, DataError
from certtrain.runs.own_data import STORE, own_data

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (10, 5, 4), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (10, 5, 4, 3), dtype=np.uint8)
LABELS = np.arange(10) % 3


class Items:
    """As a torch Dataset is: a length, and items that are pairs."""

    def __init__(self, images, labels):
        self.pairs = list(zip(images, labels, strict=True))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, row):
        return self.pairs[row]


@pytest.mark.parametrize(
    ("images", "shape", "dtype"),
    [
        (GREY, (10, 1, 5, 4), torch.uint8),
        (torch.from_numpy(GREY)[:, None], (10, 1, 5, 4), torch.uint8),
        (COLOUR, (10, 3, 5, 4), torch.uint8),
        (COLOUR.transpose(0, 3, 1, 2), (10, 3, 5, 4), torch.uint8),
        (GREY / 255, (10, 1, 5, 4), torch.float32),
        (GREY > 100, (10, 1, 5, 4), torch.float32),
        ((GREY / 255).tolist(), (10, 1, 5, 4), torch.float32),
        (np.ones((10, 1, 1, 7)), (10, 1, 1, 7), torch.float32),
    ],
)
def test_images_of_many_forms_come_to_one(images, shape, dtype):
    pair = as_pair(images, LABELS[:, None].astype(np.uint8))
    assert tuple(pair.inputs.shape) == shape
    assert pair.inputs.dtype == dtype
    assert pair.labels.tolist() == LABELS.tolist()


def test_channels_that_come_last_are_moved_and_not_mixed():
    assert (as_pair(COLOUR, LABELS).inputs[:, 1].numpy() == COLOUR[..., 1]).all()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (GREY.astype(float), LABELS, "pixels run from 0 to 2..; floats must be from 0 to 1"),
        (-(GREY / 255), LABELS, "floats must be from 0 to 1"),
        (np.full((10, 5, 4), np.nan), LABELS, "image 0 has a pixel that is NaN or infinite"),
        (GREY.astype(np.int64), LABELS, "images hold int64; uint8"),
        (GREY[0], LABELS, re.escape("images have shape [5, 4]; [images, height, width]")),
        (GREY, LABELS[:4], re.escape("there are 10 images, but labels of shape [4]")),
        (GREY, LABELS - 1, "image 0 has label -1"),
        (GREY, LABELS / 2, "labels hold float64; whole numbers"),
        (GREY, ["a"] * 10, "labels hold <U1; whole numbers"),
        (GREY[:0], LABELS[:0], "there are no images"),
        ([GREY[0], GREY[0][:2]], [0, 1], "images are no array"),
    ],
)
def test_what_is_no_image_or_label_is_named(images, labels, message):
    with pytest.raises(DataError, match=message) as caught:
        as_pair(images, labels)
    assert "\n" not in str(caught.value)


def test_the_same_data_are_stored_once_and_read_back(tmp_path):
    pair = as_pair(COLOUR, LABELS)
    splits = Splits(pair, ArrayPair(pair.inputs[:3], pair.labels[:3]), ("a", "b", "c"))
    path = store_arrays(splits, tmp_path / "new")
    written = path.stat().st_mtime_ns
    assert store_arrays(splits, tmp_path / "new") == path
    assert path.stat().st_mtime_ns == written
    assert store_arrays(Splits(splits.train, splits.test), tmp_path / "new") != path
    found = read_arrays(str(path), "arrays")
    assert torch.equal(found.train.inputs, pair.inputs)
    assert found.classes == splits.classes
    facts = measure(found)
    assert (facts.shape, facts.num_classes) == ((3, 5, 4), 3)
    assert facts.mean[2] == pytest.approx(COLOUR[..., 2].mean() / 255, abs=1e-4)
    assert facts.std[0] == pytest.approx(COLOUR[..., 0].std() / 255, abs=1e-4)
    source = ArraySource("arrays", facts.shape, facts.num_classes, facts.mean, facts.std, str(path))
    source.check()
    assert len(source.load().test) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file '.*'; data.path names a NumPy file"),
        (b"", "is no NumPy file"),
        (b"PK\x03\x04 cut off", "is no NumPy file"),
        ({"a": LABELS}, "has the arrays a; needed are train_images, train_labels, test_images, test_labels"),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": GREY, "y_test": LABELS[:1]},
            "x_test and y_test of .*: there are",
        ),
        (
            {"x_train": GREY, "y_train": np.array([None]), "x_test": GREY, "y_test": LABELS},
            "cannot be read: Object arrays",
        ),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "mine.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(DataError, match=message) as caught:
        read_arrays(str(path), "arrays")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data=arrays: ")


def overrides(given):
    return dict(word.split("=", 1) for word in own_data(given).overrides)


def test_data_sets_of_python_are_stored_with_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = overrides((GREY, LABELS))
    assert found["data"] == "arrays"
    assert (found["data.source.shape"], found["data.source.num_classes"]) == ("[1,5,4]", "3")
    assert overrides(Items(torch.from_numpy(GREY), LABELS)) == found
    (stored,) = (tmp_path / STORE).iterdir()
    assert found["data.path"] == f"'{stored}'"
    splits = read_arrays(str(stored), "arrays")
    assert (len(splits.train), len(splits.test), splits.duplicates) == (8, 2, 0)
    both = {"train": (GREY, LABELS), "test": (GREY[:2], LABELS[:2])}
    assert overrides(both) == overrides(((GREY, LABELS), (GREY[:2], LABELS[:2])))
    assert overrides(both)["data.path"] != found["data.path"]


def test_hugging_face_data_sets_are_taken_as_they_are(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])})
    rows = {"picture": [Image.fromarray(image) for image in GREY], "kind": LABELS.tolist()}
    whole = datasets.Dataset.from_dict(rows, features=features)
    found = overrides(datasets.DatasetDict({"train": whole, "validation": whole}))
    assert found["data.source.num_classes"] == "3"
    splits = read_arrays(found["data.path"].strip("'"), "arrays")
    assert splits.classes == ("a", "b", "c")
    assert (splits.train.inputs[:, 0].numpy() == GREY).all()
    with pytest.raises(DataError, match=r"no column of labels among picture \(Image\)"):
        own_data(whole.remove_columns("kind"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mnist", "'mnist' is no folder and no .npz file; .* data=mnist"),
        (3, "a int is none; give \\(images, labels\\)"),
        ({"train": (GREY, LABELS)}, "there are train; needed are 'train' and 'test'"),
        ((GREY[:2], LABELS[:2]), "2 images are too few to hold out a fifth"),
        (Items([GREY[0], GREY[0][:2]], [0, 1]), re.escape("image 1 has shape [2, 4], image 0 [5, 4]")),
        (["a", "b", "c"], "item 0 is a str; \\(image, label\\) is needed"),
    ],
)
def test_what_is_no_data_set_is_told_in_one_line(given, message):
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        own_data(given)
    assert "\n" not in str(caught.value)
