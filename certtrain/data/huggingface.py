"""Image classification data that Hugging Face `datasets` reads, from its hub or from a local folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from certtrain.data.images import decode_images
from certtrain.data.source import ArrayPair, Source, Splits
from certtrain.errors import CerttrainError, DataError

if TYPE_CHECKING:
    import datasets

# Importing `datasets` takes a second, so it is imported where it is used.

_ROWS_AT_ONCE = 1000
_HUB_TIMEOUT_S = 5.0
# What `datasets` calls the splits of a folder is guessed from file names: valid/ becomes "validation". A user who has
# labelled test images in the place of a hub's "valid" will call them "test".
_LOCAL_SPLIT_NAMES = {"valid": ("validation", "test")}


@dataclass(frozen=True)
class HuggingFaceSource(Source):
    """A data set on the Hugging Face hub, or a local copy of it.

    Attributes:
        hub: its id on the hub, `owner/name`.
        image_column: the column with the images.
        label_column: the column with the classes; a local image folder may call the two "image" and "label" instead.
        train_split: the split to train on.
        test_split: the split to certify on.
        path: a local folder that `datasets.load_dataset` reads, instead of the hub.
    """

    hub: str
    image_column: str
    label_column: str
    train_split: str
    test_split: str
    path: str | None = None

    def check(self) -> None:
        """Verifies that the data can be found: see `Source.check`.

        For a local folder, also that the splits and columns are there and that the first image of each has the
        declared shape. For the hub, only that it answers or that a copy is cached.
        """
        if self.path is None:
            self._check_hub()
            return
        for name, split in self._open().items():
            table = next(iter(split.iter(batch_size=1)), None)
            if table is None:
                raise DataError(f"data={self.name}: the split '{name}' in {self.path} is empty")
            with self._one_line_errors():
                self._decode(name, table, first=0)

    def read(self) -> Splits:
        """Reads and decodes everything: see `Source.load`."""
        train, test = (self._read_split(name, split) for name, split in self._open().items())
        return Splits(train, test)

    def _check_hub(self) -> None:
        import datasets

        if _hub_answers(self.hub):
            return
        with self._one_line_errors(), _quiet(offline=True):
            datasets.load_dataset_builder(self.hub)

    def _open(self) -> "dict[str, datasets.IterableDataset]":
        """The training and the test split, in this order, as streams of Arrow tables of encoded images and labels."""
        import datasets

        if self.path is None:
            offline = not _hub_answers(self.hub)
            with self._one_line_errors(), _quiet(offline):
                found = datasets.load_dataset(self.hub)
                found = {name: split.to_iterable_dataset() for name, split in found.items()}
            names = (self.train_split, self.test_split)
        else:
            folder = Path(self.path).expanduser()
            if not folder.is_dir():
                raise DataError(f"data={self.name}: data.path={self.path} is not a folder; it must hold {self._layout}")
            # Streamed: files are read where they are, and no second copy is written to a cache that could go stale.
            with self._one_line_errors(), _quiet(offline=False):
                found = datasets.load_dataset(str(folder), streaming=True)
            names = tuple(self._local_name(name, found) for name in (self.train_split, self.test_split))
        for name in names:
            if name not in found:
                raise DataError(
                    f"data={self.name}: no split '{name}' in {self.path or self.hub} "
                    f"(found: {', '.join(found)}); expected {self._layout}"
                )
        return {name: self._stream(found[name]) for name in names}

    @property
    def _layout(self) -> str:
        train, test = self.train_split, self.test_split
        return f"{train}-*.parquet and {test}-*.parquet, or images in {train}/<class>/ and {test}/<class>/"

    def _local_name(self, declared: str, found: Any) -> str:
        candidates = (declared, *_LOCAL_SPLIT_NAMES.get(declared, ()))
        return next((name for name in candidates if name in found), declared)
