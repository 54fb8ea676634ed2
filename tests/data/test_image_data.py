import math
from dataclasses import dataclass, replace

import pytest
import torch
from numbered import Numbered, collect, equal, image_data, numbered

from certtrain.data.augment import Augmentation
from certtrain.data.source import ArrayPair, Splits
from certtrain.errors import ConfigError, DataError


def test_parts_are_stratified_disjoint_and_complete():
    data = image_data()
    assert len(data.train_rows) == 90
    assert data.splits.train.labels[data.validation_rows].bincount().tolist() == [2] * 5
    assert torch.equal(torch.cat([data.train_rows, data.validation_rows]).sort().values, torch.arange(100))


def test_no_image_is_in_two_loaders():
    data = image_data(batch_size=1)
    drawn = {}
    for name, loader in {
        "train": data.train_dataloader(),
        "validation": data.val_dataloader(),
        "test": data.test_dataloader(),
    }.items():
        marks = torch.cat([batch[0][:, 0, 0, :2] for batch in loader]).mul(255).round().int()
        drawn[name] = {tuple(mark) for mark in marks.tolist()}
    assert {name: len(marks) for name, marks in drawn.items()} == {"train": 90, "validation": 10, "test": 7}
    assert len(set.union(*drawn.values())) == 107


def test_validation_images_depend_on_the_split_seed_alone():
    rows = image_data(seed=0).validation_rows
    assert torch.equal(image_data(seed=1, batch_size=2).validation_rows, rows)
    assert not torch.equal(image_data(split_seed=1).validation_rows, rows)


def test_batches_are_float32_pixels_of_their_rows():
    data = image_data()
    inputs, labels = next(iter(data.train_dataloader()))
    assert inputs.dtype == torch.float32
    assert inputs.shape == (8, 3, 4, 4)
    assert labels.dtype == torch.int64
    rows = inputs[:, 0, 0, 1].mul(255).round().long()
    assert torch.equal(inputs, data.splits.train.inputs[rows].float() / 255)
    assert torch.equal(labels, data.splits.train.labels[rows])


@pytest.mark.parametrize("test_batch_size", [1, 3, 7, 100])
def test_seven_test_images_give_exactly_seven_rows(test_batch_size):
    data = image_data(test_batch_size=test_batch_size)
    loader = data.test_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader)
    inputs, labels, rows = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert rows.tolist() == list(range(7))
    assert torch.equal(inputs, data.splits.test.inputs.float() / 255)
    assert torch.equal(labels, data.splits.test.labels)


def test_validation_is_in_order_complete_and_not_augmented():
    data = image_data(augment=Augmentation(crop=2, flip=True))
    inputs, labels, rows = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    assert torch.equal(rows, data.validation_rows)
    assert torch.equal(inputs, data.splits.train.inputs[rows].float() / 255)
    assert torch.equal(labels, data.splits.train.labels[rows])


def test_training_batches_are_a_pure_function_of_seed_and_epoch():
    augment = Augmentation(crop=1, flip=True)
    batches = collect(image_data(augment=augment), epoch=3)
    torch.manual_seed(7)
    assert equal(collect(image_data(augment=augment), epoch=3), batches)
    assert not equal(collect(image_data(augment=augment), epoch=4), batches)
    assert not equal(collect(image_data(augment=augment, seed=1), epoch=3), batches)


def test_resuming_inside_an_epoch_continues_with_the_same_augmented_batches():
    augment = Augmentation(crop=1, flip=True)
    whole = collect(image_data(augment=augment), epoch=2)
    assert equal(collect(image_data(augment=augment), epoch=2, start=5), whole[5:])


def test_an_image_varies_from_epoch_to_epoch():
    data = image_data(numbered(train=1), batch_size=1, validation=0.0, augment=Augmentation(crop=2, flip=True))
    seen = {collect(data, epoch)[0][0].numpy().tobytes() for epoch in range(20)}
    assert len(seen) > 10


def test_last_training_batch_is_full_unless_it_is_the_only_one():
    assert [len(labels) for _, labels in image_data(batch_size=40).train_dataloader()] == [40, 40]
    assert [len(labels) for _, labels in image_data(batch_size=1000).train_dataloader()] == [90]


def test_no_validation():
    data = image_data(validation=0.0)
    assert data.val_dataloader() == []
    assert len(data.train_rows) == 100


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, r"data\.batch_size must be at least 1, not 0"),
        ({"test_batch_size": 0}, r"data\.test_batch_size must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"split_seed": 2**32}, r"data\.split_seed must be at least 0 and below"),
        ({"validation": 1.0}, r"data\.validation must be a fraction, at least 0 and below 1, not 1\.0"),
        ({"validation": -0.1}, r"data\.validation must be a fraction"),
        ({"max_duplicates": 1.1}, r"data\.max_duplicates must be a fraction from 0 to 1, not 1\.1"),
        ({"validation": 0.001}, r"data\.validation=0\.001 of 100 training images holds out 0"),
        ({"validation": 0.999}, r"data\.validation=0\.999 of 100 training images holds out 100"),
    ],
)
def test_values_out_of_range_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        image_data(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": 0}, "the test split is empty"),
        ({"num_classes": 3}, r"training image 3 has label 3, but 3 classes are declared \(labels 0 to 2\)"),
        ({"shape": (3, 5, 4)}, r"training images have shape \[3, 4, 4\], but \[3, 5, 4\] is declared"),
    ],
)
def test_data_that_are_not_as_declared_are_refused(changes, words):
    @dataclass(frozen=True)
    class Wrong(Numbered):
        def read(self):
            return numbered(test=changes.get("test", 7)).read()

    declared = {"name": "wrong", "shape": (3, 4, 4), "num_classes": 5}
    declared |= {key: changes[key] for key in ("shape", "num_classes") if key in changes}
    with pytest.raises(DataError, match=words):
        Wrong(**declared, mean=(0.5,) * 3, std=(0.25,) * 3).load()


@dataclass(frozen=True)
class Given(Numbered):
    """Images and labels as they are given."""

    pairs: tuple = ()

    def read(self):
        return Splits(*self.pairs)


def given(train, test):
    return replace(GIVEN, pairs=(train, test))


GIVEN = Given("given", (1, 1, 1), 2, (0.5,), (0.25,))


def pair(values, labels=None, kind=torch.uint8):
    labels = torch.arange(len(values)) % 2 if labels is None else labels
    return ArrayPair(torch.tensor(values, dtype=kind).reshape(-1, 1, 1, 1), labels)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (pair([1, 2], torch.tensor([0, 1], dtype=torch.int32)), "training labels must be int64, not torch.int32"),
        (pair([0.0, 1.5], kind=torch.float32), "training images must be uint8, or float32 from 0 to 1"),
        (pair([0.0, float("nan")], kind=torch.float32), "training images must be uint8, or float32 from 0 to 1"),
    ],
)
def test_other_kinds_of_numbers_are_refused(train, words):
    with pytest.raises(DataError, match=words):
        given(train, pair([3])).load()


def test_test_images_among_the_training_images_are_counted_and_refused():
    source = given(pair(list(range(100))), pair([7, 7, *range(200, 206)]))
    with pytest.raises(DataError, match=r"2 of 8 test images \(25 %\) are also training images, bit by bit") as error:
        image_data(source, max_duplicates=0.24)
    assert "\n" not in str(error.value)
    data = image_data(source, max_duplicates=0.25)
    assert "2 of 8 test images are also training images, bit by bit" in data.describe()


def test_images_per_class_and_split_are_described():
    lines = image_data(numbered(train=99, test=7)).describe()
    assert lines == [
        "training: 89 images, by class 0: 18, 1: 18, 2: 18, 3: 18, 4: 17",
        "validation: 10 images, 2 of each of 5 classes",
        "test: 7 images, by class 0: 2, 1: 2, 2: 1, 3: 1, 4: 1",
        "0 of 7 test images are also training images, bit by bit",
    ]


def test_many_classes_are_described_by_the_extremes():
    lines = image_data(numbered(num_classes=50, train=99), validation=0.0).describe()
    assert lines[0] == "training: 99 images, 1 (49) to 2 (9) of 50 classes, 2 in 49 of them"


def test_classes_that_do_not_occur_are_mentioned():
    lines = image_data(numbered(train=3), validation=0.0).describe()
    assert "no training images of 2 classes: 3, 4" in lines


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (4, 4)}, "shape must be"),
        ({"num_classes": 1}, "num_classes must be a whole number from 2 on, not 1"),
        ({"std": (0.5, math.nan, 0.5)}, "mean and std must be numbers"),
        ({"mean": (0.5, math.inf, 0.5)}, "mean and std must be numbers"),
        ({"mean": (0.5,)}, "one value per channel"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be positive"),
    ],
)
def test_contradictory_declarations_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        numbered(**changes)
