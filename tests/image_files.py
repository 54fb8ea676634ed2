"""Folders of tiny images as people keep them, and the data source that is pointed at them."""

import numpy as np
from PIL import Image

from certtrain.data.huggingface import HuggingFaceSource


def source(**changes):
    """A source of three classes of 4x5 images, one channel unless changed."""
    channels = changes.pop("channels", 1)
    declared = {
        "name": "tiny",
        "shape": [channels, 4, 5],
        "num_classes": 3,
        "mean": [0.5] * channels,
        "std": [0.25] * channels,
        "hub": "certtrain-tests/tiny",
        "image_column": "image",
        "label_column": "label",
        "train_split": "train",
        "test_split": "test",
    }
    return HuggingFaceSource(**(declared | changes))


def pixels(count, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(count, channels, 4, 5), dtype=np.uint8)


def as_image(array):
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


def write_parquet(file, images, labels, image_column="image", class_names=("a", "b", "c")):
    import datasets

    label = datasets.ClassLabel(names=list(class_names)) if class_names else datasets.Value("int32")
    columns = {
        image_column: [as_image(image) for image in images],
        "label": labels,
        "note": ["x"] * len(labels),
    }
    features = {image_column: datasets.Image(), "label": label, "note": datasets.Value("string")}
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:  # `datasets` would take some names for patterns
        datasets.Dataset.from_dict(columns, datasets.Features(features)).to_parquet(stream)


def write_parquet_folder(folder, test_name="test", channels=1, **options):
    train, test = pixels(6, channels, seed=1), pixels(4, channels, seed=2)
    write_parquet(folder / "train-00000-of-00001.parquet", train, [0, 1, 2, 2, 1, 0], **options)
    write_parquet(folder / f"{test_name}-00000-of-00001.parquet", test, [2, 0, 1, 1], **options)
    return train, test


def write_image_folder(folder, classes=("0", "1", "2"), test_name="test", channels=1):
    """Two training images and one test image per class; returns class -> images."""
    written = {}
    for number, name in enumerate(classes):
        images = written[name] = pixels(3, channels, seed=number)
        for split, parts in (("train", images[:2]), (test_name, images[2:])):
            (folder / split / name).mkdir(parents=True)
            for position, image in enumerate(parts):
                as_image(image).save(folder / split / name / f"{position}.png")
    return written


def message(error):
    text = str(error.value)
    assert "\n" not in text
    return text
