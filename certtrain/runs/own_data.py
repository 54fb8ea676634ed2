"""Data of one's own as overrides: arrays and data sets are stored under their content, where every process reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certtrain.data.arrays import as_pair, measure, store_arrays
from certtrain.data.source import ArrayPair, Splits
from certtrain.data.splits import stratified_split
from certtrain.errors import CerttrainError, ConfigError, DataError
from certtrain.runs.own import Given, literal
from certtrain.sweep.launcher import quoted

# Where arrays are stored, below the current directory.
STORE = Path("outputs", "data")
# Of data that come without test images: held out for the certification, the same ones every time.
TEST_SHARE = 0.2
_SPLIT_SEED = 0
_TEST_NAMES = ("test", "validation", "valid", "val")
FORMS = (
    "(images, labels), a data set of (image, label), a Hugging Face Dataset; two of them as {'train': ..., 'test': "
    "...}; or a path of a folder of images or Parquet files, or of a .npz file"
)


def own_data(given: Any) -> Given:
    """A data set as `data=...` with its place and, where it has to be declared, what it is.

    Args:
        given: None; a path of a folder (as `data=folder`) or of a .npz file (as `data=arrays`); or a set of labelled
            images: (images, labels) as `certtrain.data.arrays.as_pair` takes them, anything with a length whose items
            are (image, label), such as a torch Dataset, or a Hugging Face Dataset with a column of images and one of
            labels. Two sets as {"train": ..., "test": ...}, a DatasetDict, or a pair of them. Of a single one a fifth
            of each class, the same images every time, is held out as test images.

    Raises:
        CerttrainError: If it is nothing of all this; one line.
    """
    if given is None:
        return Given()
    if isinstance(given, (str, Path)):
        return Given(_of_path(Path(given).expanduser()))
    splits = _splits(given)
    path = store_arrays(splits, STORE)
    facts = asdict(measure(splits))
    declared = [f"data.source.{name}={literal(value, 'data')}" for name, value in facts.items()]
    return Given(("data=arrays", f"data.path={quoted(str(path))}", *declared))


def _of_path(path: Path) -> tuple[str, ...]:
    where = f"data.path={quoted(str(path.absolute()))}"
    if path.is_dir():
        return "data=folder", where
    if path.is_file() and path.suffix == ".npz":
        return "data=arrays", where
    raise ConfigError(
        f"data: '{path}' is no folder and no .npz file; one of certtrain's own data sets is the override data={path}, "
        f"one of the Hugging Face hub data=hub data.source.hub={path}"
    )


def _splits(given: Any) -> Splits:
    if isinstance(given, Mapping):
        return _named_splits(given)
    if isinstance(given, (tuple, list)) and len(given) == 2:
        if all(isinstance(part, (tuple, list)) and len(part) == 2 and _is_array(part[0]) for part in given):
            return Splits(_pair(given[0], "train"), _pair(given[1], "test"))
        if not _is_array(given[0]) and _is_data_set(given[0]) and _is_data_set(given[1]):
            return Splits(_pair(given[0], "train"), _pair(given[1], "test"), _class_names(given[0]))
    whole = _pair(given, "data")
    size = round(TEST_SHARE * len(whole))
    if not 0 < size < len(whole):
        raise DataError(f"data: {len(whole)} images are too few to hold out a fifth of them for the certification")
    train, test = stratified_split(whole.labels, size, _SPLIT_SEED)
    return Splits(
        ArrayPair(whole.inputs[train], whole.labels[train]),
        ArrayPair(whole.inputs[test], whole.labels[test]),
        _class_names(given),
    )


def _named_splits(given: Mapping[Any, Any]) -> Splits:
    test = next((name for name in _TEST_NAMES if name in given), None)
    if "train" not in given or test is None:
        raise DataError(f"data: there are {', '.join(map(str, given)) or 'no splits'}; needed are 'train' and 'test'")
    return Splits(_pair(given["train"], "train"), _pair(given[test], test), _class_names(given["train"]))


def _pair(given: Any, name: str) -> ArrayPair:
    """One set of labelled images."""
    if isinstance(given, (tuple, list)) and len(given) == 2:
        images, labels = given
    elif hasattr(given, "features") and hasattr(given, "column_names"):
        images, labels = _of_hugging_face(given, name)
    elif _is_data_set(given):
        images, labels = _of_items(given, name)
    else:
        raise ConfigError(f"data: a {type(given).__name__} is none; give {FORMS}")
    try:
        return as_pair(images, labels)
    except CerttrainError as error:
        raise DataError(f"data ({name}): {error}") from error


def _of_hugging_face(given: Any, name: str) -> tuple[Any, Any]:
    """Images and labels of a Dataset of Hugging Face, in whatever columns they are."""
    kinds = {column: type(feature).__name__ for column, feature in given.features.items()}
    images = [column for column, kind in kinds.items() if kind in ("Image", "Array2D", "Array3D")]
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or [column for column in ("label", "labels", "y") if column in kinds]
    if not images or not labels:
        said = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
        raise DataError(f"data ({name}): no column of {'labels' if images else 'images'} among {said}")
    plain = given.with_format(None)
    return _stacked([_pixels(image) for image in plain[images[0]]], name), list(plain[labels[0]])


def _of_items(given: Any, name: str) -> tuple[Any, Any]:
    images, labels = [], []
    for row in range(len(given)):
        item = given[row]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(f"data ({name}): item {row} is a {type(item).__name__}; (image, label) is needed")
        images.append(_pixels(item[0]))
        labels.append(int(item[1]))
    return _stacked(images, name), labels


def _stacked(images: Sequence[np.ndarray], name: str) -> Any:
    shapes = [image.shape for image in images]
    if other := next((row for row, shape in enumerate(shapes) if shape != shapes[0]), None):
        raise DataError(
            f"data ({name}): image {other} has shape {list(shapes[other])}, image 0 {list(shapes[0])}: all must be "
            "alike"
        )
    return np.stack(images) if images else np.zeros((0, 1, 1))


def _pixels(image: Any) -> np.ndarray:
    if isinstance(image, torch.Tensor):
        return image.detach().cpu().numpy()
    if hasattr(image, "convert"):  # Pillow's: palettes and the like become colours
        return np.asarray(image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB"))
    return np.asarray(image)


def _class_names(given: Any) -> tuple[str, ...]:
    features = getattr(given, "features", None)
    found = [getattr(feature, "names", None) for feature in features.values()] if isinstance(features, Mapping) else []
    return next((tuple(map(str, names)) for names in found if names), ())


def _is_array(given: Any) -> bool:
    return isinstance(given, (np.ndarray, torch.Tensor)) or (isinstance(given, list) and not isinstance(given, str))


def _is_data_set(given: Any) -> bool:
    return not isinstance(given, (str, bytes)) and hasattr(given, "__len__") and hasattr(given, "__getitem__")
