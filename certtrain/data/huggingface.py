"""Image classification data that Hugging Face `datasets` reads, from its hub or from a local folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from certtrain.data.hub import hub_answers, quiet_datasets
from certtrain.data.images import decode_images
from certtrain.data.source import ArrayPair, Source, Splits
from certtrain.errors import CerttrainError, DataError

# `datasets` takes a second to import, so it is imported where it is used.

_ROWS_AT_ONCE = 1000
# Decoding that takes longer shows its progress.
_PATIENCE_S = 3
# `datasets` names the splits of a folder after its files, and valid/ becomes "validation". And who puts
# labelled images in the place of a hub's "valid" may well call them "test".
_LOCAL_SPLIT_NAMES = {"valid": ("validation", "test")}


@dataclass(frozen=True)
class _EncodedSplit:
    """A split as `datasets` found it.

    Attributes:
        name: what `datasets` calls it.
        rows: gives Arrow tables with a column of encoded images and one of labels.
        image: the name of the one column.
        label: the name of the other.
        classes: the names of the labels, empty if they are plain integers.
    """

    name: str
    rows: Any
    image: str
    label: str
    classes: Sequence[str]


@dataclass(frozen=True)
class HuggingFaceSource(Source):
    """A data set on the Hugging Face hub, or a local copy of it.

    Attributes:
        hub: its id on the hub, `owner/name`.
        image_column: the column with the images; an image folder may call it "image" all the same.
        label_column: the column with the classes; an image folder may call it "label" all the same.
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

        Of a local folder, the first row of each split is read and compared with what is declared. Of the hub
        it is only asked whether it answers and, if it does not, whether a copy is cached.
        """
        if self.path is not None:
            for split in self._open():
                self._decode(split, rows=1)
        elif not hub_answers(self.hub):
            import datasets

            with self._explained(), quiet_datasets(offline=True):
                datasets.load_dataset_builder(self.hub)

    def read(self) -> Splits:
        """Reads and decodes both splits: see `Source.load`."""
        train, test = (self._decode(split) for split in self._open())
        return Splits(train, test)

    def _open(self) -> list[_EncodedSplit]:
        """Opens the training and the test split, in this order."""
        import datasets

        if self.path is None:
            offline = not hub_answers(self.hub)
            with self._explained(), quiet_datasets(offline):
                found = datasets.load_dataset(self.hub)
        else:
            folder = Path(self.path).expanduser()
            if not self.path or not folder.is_dir():  # an empty path would be the current folder
                raise DataError(f"data={self.name}: '{self.path}' is no folder; {self._advice}")
            # Streamed: the files are read where they are, and no copy of them goes stale in a cache.
            with self._explained(), quiet_datasets(offline=False):
                found = datasets.load_dataset(str(folder), streaming=True)
        names = [self._find_split(name, found) for name in (self.train_split, self.test_split)]
        return [self._encoded(name, found[name]) for name in names]

    def _find_split(self, declared: str, found: Any) -> str:
        alternatives = () if self.path is None else _LOCAL_SPLIT_NAMES.get(declared, ())
        for name in (declared, *alternatives):
            if name in found:
                return name
        raise DataError(
            f"data={self.name}: {self._place} has no split '{declared}', only {', '.join(found)}; {self._advice}"
        )

    def _encoded(self, name: str, split: Any) -> _EncodedSplit:
        """Finds the columns of a split and verifies the number of classes."""
        import datasets

        features = split.features or {}
        columns = []
        for declared, of_image_folder in ((self.image_column, "image"), (self.label_column, "label")):
            column = declared if declared in features or self.path is None else of_image_folder
            if column not in features:
                raise DataError(
                    f"data={self.name}: split '{name}' of {self._place} has no column '{declared}', only "
                    f"{', '.join(features) or 'unknown ones'}; {self._advice}"
                )
            columns.append(column)
        image, label = columns
        classes = getattr(features[label], "names", [])  # plain integers have no names
        if classes and len(classes) != self.num_classes:
            raise DataError(
                f"data={self.name}: {self._place} has {len(classes)} classes "
                f"({', '.join(classes[:3])}, ...), but {self.num_classes} are declared; {self._advice}"
            )
        with self._explained(name):
            rows = split.select_columns(columns).cast_column(image, datasets.Image(decode=False))
            return _EncodedSplit(name, rows.with_format("arrow"), image, label, classes)

    def _decode(self, split: _EncodedSplit, rows: int | None = None) -> ArrayPair:
        """Decodes the first `rows` images of a split, or all."""
        from tqdm.auto import tqdm

        inputs, labels, done = [], [], 0
        # disable=None: no progress where nobody looks at a terminal.
        title = f"decoding {self.name} {split.name}"
        progress = tqdm(desc=title, unit=" images", delay=_PATIENCE_S, leave=False, disable=None)
        with self._explained(split.name), progress:
            for table in split.rows.iter(batch_size=rows or _ROWS_AT_ONCE):
                inputs.append(decode_images(table[split.image].to_pylist(), self.shape, first=done))
                labels.append(_labels(table[split.label], split.classes))
                done += len(table)
                progress.update(len(table))
                if done == rows:
                    break
            if done == 0:
                raise DataError("it is empty")
        return ArrayPair(torch.cat(inputs), torch.cat(labels))

    @property
    def _place(self) -> str:
        return self.path or f"hub data set {self.hub}"

    @property
    def _advice(self) -> str:
        train, test = self.train_split, self.test_split
        return (
            f"{'set data.path to a folder with' if self.path is None else 'data.path must hold'} "
            f"{train}-*.parquet and {test}-*.parquet, or image folders {train}/<class>/*.png and "
            f"{test}/<class>/*.png"
        )

    @contextmanager
    def _explained(self, split: str | None = None) -> Iterator[None]:
        """Turns whatever goes wrong while foreign code reads into one line that says what to do."""
        place = self._place if split is None else f"split '{split}' of {self._place}"
        try:
            yield
        except CerttrainError as error:
            raise DataError(f"data={self.name}: {place}: {error}") from error
        except Exception as error:  # of pyarrow, fsspec, Pillow, YAML, ...: an open list
            problem = f"{place} cannot be read"
            if isinstance(error, ConnectionError):
                problem = f"the Hugging Face hub ({self.hub}) cannot be reached and no copy is cached"
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DataError(f"data={self.name}: {problem}; {self._advice} ({reason})") from error


def _labels(column: Any, names: Sequence[str]) -> Int[Tensor, " rows"]:
    """Converts an Arrow column of classes with these names to int64.

    Classes named 0, 1, ..., 10, ... mean these numbers: `datasets` numbers the folders of an image folder in
    alphabetical order, where 10 comes before 2.
    """
    values = column.to_numpy()
    if not np.issubdtype(values.dtype, np.integer):  # a missing value makes floats of whole numbers
        raise DataError(f"labels must be whole numbers without gaps, not {column.type}")
    labels = torch.from_numpy(values.astype(np.int64))
    numbered = sorted(names) == sorted(str(number) for number in range(len(names)))
    # Labels out of range stay as they are, to be refused: an index of -1 would make them the last class.
    if not numbered or not ((labels >= 0) & (labels < len(names))).all():
        return labels
    return torch.tensor([int(name) for name in names])[labels]
