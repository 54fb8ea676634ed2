import hashlib

import pytest
import torch
from sklearn.datasets import load_digits

from certtrain.data.digits import DigitsSource
from certtrain.errors import DataError


def digits(path=None):
    return DigitsSource(name="digits", shape=[1, 8, 8], num_classes=10, mean=[0.3058], std=[0.3766], path=path)


@pytest.fixture(scope="module")
def splits():
    source = digits()
    source.check()
    return source.load()


def test_sizes_types_and_range(splits):
    assert splits.train.inputs.shape == (1437, 1, 8, 8)
    assert splits.test.inputs.shape == (360, 1, 8, 8)
    for pair in (splits.train, splits.test):
        assert pair.inputs.dtype == torch.float32
        assert pair.labels.dtype == torch.int64
        assert pair.inputs.min() == 0
        assert pair.inputs.max() == 1


def test_splits_are_the_scans_of_scikit_learn_each_once(splits):
    pixels, labels = load_digits(return_X_y=True)
    published = sorted((row.tobytes(), label) for row, label in zip(pixels, labels, strict=True))
    loaded = sorted(
        ((image.double() * 16).numpy().tobytes(), int(label))
        for pair in (splits.train, splits.test)
        for image, label in zip(pair.inputs, pair.labels, strict=True)
    )
    assert loaded == published


def test_split_is_stratified(splits):
    train, test = splits.train.labels.bincount(), splits.test.labels.bincount()
    assert (test - (train + test) * 360 / 1797).abs().max() < 1


def test_split_is_fixed_for_ever(splits):
    scans = (splits.test.inputs * 16).to(torch.uint8).numpy().tobytes()
    assert hashlib.sha256(scans).hexdigest() == "1b67ee694ed7567d766d2c192d7a3f5665d3b5797afde4dcad1cc115de0f1431"


def test_declared_statistics_are_those_of_the_training_images(splits):
    source = digits()
    assert splits.train.inputs.mean().item() == pytest.approx(source.mean[0], abs=5e-5)
    assert splits.train.inputs.std(correction=0).item() == pytest.approx(source.std[0], abs=5e-5)


def test_a_folder_is_refused():
    source = digits(path="/data/digits")
    for read in (source.check, source.load):
        with pytest.raises(DataError, match=r"digits comes with scikit-learn.*unset data\.path \(/data/digits\)"):
            read()
