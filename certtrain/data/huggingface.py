"""Image classification data from the Hugging Face hub, or from a local folder of Parquet files or images."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certtrain.cache import is_off
from certtrain.data import decoded
from certtrain.data.classfolders import image_files, open_class_folders
from certtrain.data.encoded import EncodedSplit, decode_split
from certtrain.data.hub import hub_answers, quiet_datasets
from certtrain.data.layout import files_below, find_layout, parquet_files
from certtrain.data.source import ArrayPair, Source, Splits
from certtrain.data.tables import Columns, hub_shard, open_tables, parquet_shard
from certtrain.errors import CerttrainError, ConfigError, DataError


@dataclass(frozen=True)
class _Found:
    """Two splits that have been found and not been decoded.

    Attributes:
        train: the training split.
        test: the test split.
        classes: the names of the labels, empty if they are plain integers.
        notes: what people should know of them.
    """

    train: EncodedSplit
    test: EncodedSplit
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HuggingFaceSource(Source):
    """A data set on the Hugging Face hub, or a local copy of it.

    Attributes:
        hub: its id on the hub, `owner/name`.
        image_column: the column with the images; a local Parquet file may call it "image" all the same.
        label_column: the column with the classes; a local Parquet file may call it "label" all the same.
        train_split: the split to train on.
        test_split: the split to certify on.
        path: a local folder instead of the hub, with Parquet files or with images in one folder per class; which of
            them are which split is said by the names at its top level alone: see `find_layout`.
    """

    hub: str
    image_column: str
    label_column: str
    train_split: str
    test_split: str
    path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape[0] not in (1, 3):
            raise ConfigError(f"data={self.name}: images have 1 channel (grey) or 3 (RGB), not {self.shape[0]}")

    def check(self) -> None:
        """Verifies that the data can be found: see `Source.check`.

        Of a local folder, all files are listed, and the first image of each split is read and compared with what is
        declared. Of the hub it is only asked whether it answers and, if it does not, whether a copy is cached.
        """
        if self.path is not None:
            key, _ = self._identified()
            if key is not None and decoded.is_kept(key):
                return
            found = self._open()
            for split in (found.train, found.test):
                self._decode(split, limit=1)
        elif not hub_answers(self.hub):
            import datasets

            with self._explained(f"; {self._advice}"), quiet_datasets(offline=True):
                datasets.load_dataset_builder(self.hub)

    def read(self) -> Splits:
        """Reads and decodes both splits, or takes what is kept of the same files: see `Source.load`."""
        key, files = self._identified()
        if key is not None and (kept := decoded.find(key)) is not None:
            return kept
        found = self._open()
        watch = decoded.Watch(files)
        train, test = (self._decode(watch.over(split)) for split in (found.train, found.test))
        splits = Splits(train, test, found.classes, found.notes)
        if key is not None and not watch.elsewhere:
            decoded.keep(key, splits)
        return splits

    def _identified(self) -> tuple[str | None, list[Path]]:
        """What tells the data from others by the content of their files, and these files.

        None and no files on the hub, where nothing is to be kept, and where the folder is not as it should be, which
        whoever opens it complains about.
        """
        if not self.path or is_off():
            return None, []
        folder = Path(self.path).expanduser()
        told = (tuple(self.shape), self.num_classes, self.image_column, self.label_column)
        try:
            layout = find_layout(folder, self.train_split, self.test_split)
            parts = [
                [file for entry in entries for file in (files_below(entry) if entry.is_dir() else [entry])]
                for entries in (layout.train, layout.test)
            ]
            files = [file for part in parts for file in part]
            return decoded.key_of((told, layout.unused, len(parts[0])), files, folder), files
        except (CerttrainError, OSError):
            return None, []

    def _open(self) -> _Found:
        with self._explained(f"; {self._advice}"):
            return self._open_hub() if self.path is None else self._open_folder(self.path)

    def _open_hub(self) -> _Found:
        import datasets

        with quiet_datasets(offline=not hub_answers(self.hub)):
            found = datasets.load_dataset(self.hub)
        names = (self.train_split, self.test_split)
        for name in names:
            if name not in found:
                raise DataError(f"{self._place} has no split '{name}', only {', '.join(found)}")
        train, test = (hub_shard(found[name], f"split '{name}' of {self._place}", self._columns) for name in names)
        return _Found(*open_tables([train], [test], names, self._expected_classes))

    def _open_folder(self, path: str) -> _Found:
        folder = Path(path).expanduser()
        if not path or not folder.is_dir():  # an empty path would be the current folder
            raise DataError(f"{self._place} is no folder")
        layout = find_layout(folder, self.train_split, self.test_split)
        notes = (f"beside the splits, and not used: {', '.join(layout.unused)}",) if layout.unused else ()
        tables = [_tables(entries) for entries in (layout.train, layout.test)]
        if not any(tables):
            found = open_class_folders(layout.train[0], layout.test[0], self._expected_classes)
            return _Found(found.train, found.test, found.classes, (*notes, *found.notes))
        if not all(tables):
            raise DataError(f"{self._place} has Parquet files for one split only")
        train, test = ([parquet_shard(file, self._columns) for file in files] for files in tables)
        return _Found(*open_tables(train, test, (self.train_split, self.test_split), self._expected_classes), notes)

    @property
    def _expected_classes(self) -> int | None:
        """How many classes must be there; None for any."""
        return self.num_classes

    @property
    def _columns(self) -> Columns:
        local = self.path is not None
        return Columns(
            (self.image_column, *(("image",) if local else ())), (self.label_column, *(("label",) if local else ()))
        )

    def _decode(self, split: EncodedSplit, limit: int | None = None) -> ArrayPair:
        """Decodes the first images of a split, or all."""
        with self._explained():
            title = f"decoding {self.name} {split.name}"
            return decode_split(split, self.shape, self.num_classes, title, limit)

    @property
    def _place(self) -> str:
        return f"hub data set {self.hub}" if self.path is None else f"'{self.path}'"

    @property
    def _advice(self) -> str:
        train, test = self.train_split, self.test_split
        return (
            f"{'set data.path to a folder with' if self.path is None else 'data.path must hold'} "
            f"{train}-*.parquet and {test}-*.parquet, or image folders {train}/<class>/*.png and "
            f"{test}/<class>/*.png"
        )

    @contextmanager
    def _explained(self, advice: str = "") -> Iterator[None]:
        """Turns whatever goes wrong while foreign code reads into one line that says what to do."""
        try:
            yield
        except CerttrainError as error:
            raise DataError(f"data={self.name}: {error}{advice}") from error
        except Exception as error:  # of pyarrow, fsspec, Pillow, YAML, ...: an open list
            problem = f"{self._place} cannot be read"
            if (full := _full_disk(error)) is not None:
                raise DataError(f"data={self.name}: {self._place} cannot be kept: {full}") from error
            if isinstance(error, ConnectionError):
                problem = f"the Hugging Face hub ({self.hub}) cannot be reached and no copy is cached"
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DataError(f"data={self.name}: {problem}{advice} ({reason})") from error


def _tables(entries: tuple[Path, ...]) -> list[Path]:
    """The Parquet files of a split; none if it is a folder of images.

    Raises:
        DataError: it is a folder of both, or of neither.
        OSError: it cannot be listed.
    """
    if not entries[0].is_dir():
        return list(entries)
    files = list(files_below(entries[0]))
    tables, images = parquet_files(files), image_files(files)
    if bool(tables) == bool(images):
        raise DataError(f"{entries[0]} holds {'both images and' if tables else 'neither images nor'} Parquet files")
    return tables


def _full_disk(error: BaseException | None) -> str | None:
    """What to say if the reason is a full disk, which `datasets` tells only in a chain of errors."""
    import datasets

    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or datasets.config.HF_DATASETS_CACHE
            return f"no space is left on the disk of {where}; HF_HOME names another place for what is downloaded"
        error = error.__cause__ or error.__context__
    return None
