"""Arrow tables with a column of encoded images and one of labels: Parquet files, and what the hub has sent."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certtrain.data.classfolders import in_numerical_order, listing
from certtrain.data.encoded import EncodedImage, EncodedSplit
from certtrain.errors import DataError

# `datasets` takes a second to import, so it is imported where it is used.

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Columns:
    """Where the images and the labels stand.

    Attributes:
        image: names of the column of images, the likeliest first.
        label: names of the column of labels, the likeliest first.
    """

    image: tuple[str, ...]
    label: tuple[str, ...]

    def find(self, features: Mapping[str, Any]) -> tuple[str, str]:
        """The two columns of a table.

        Raises:
            DataError: it has none of one kind.
        """
        found = []
        for names in (self.image, self.label):
            there = [name for name in names if name in features]
            if not there:
                raise DataError(f"has no column '{names[0]}', only {', '.join(features) or 'unknown ones'}")
            found.append(there[0])
        return found[0], found[1]


@dataclass(frozen=True)
class Shard:
    """A table that has been found.

    Attributes:
        place: what messages call it.
        names: of its classes in its own order, empty if labels are plain integers.
        size: the number of its rows.
        image: the column of images.
        label: the column of labels.
        batches: begins to read it.
        folder: where image files that it only names are.
    """

    place: str
    names: tuple[str, ...]
    size: int
    image: str
    label: str
    batches: Callable[[], Iterator[Any]]
    folder: Path


def open_tables(
    train: Sequence[Shard], test: Sequence[Shard], names: tuple[str, str], num_classes: int | None
) -> tuple[EncodedSplit, EncodedSplit, tuple[str, ...]]:
    """Two splits with the same labels, and the names of the classes in their order, empty if they have none.

    Named classes are numbered as in the first table, whatever their numbers are in the others, or, where all names
    are numbers, by their value: `datasets` numbers folders in alphabetical order, where 10 comes before 2.

    Args:
        train: the tables of the training split.
        test: the tables of the test split.
        names: what messages call the two splits.
        num_classes: how many classes are declared; None for any number.

    Raises:
        DataError: tables do not have the same classes, or not as many as declared.
    """
    first = train[0]
    for shard in (*train, *test):
        if set(shard.names) != set(first.names):
            differing = sorted(set(shard.names).symmetric_difference(first.names))
            raise DataError(f"{shard.place} and {first.place} do not name the same classes ({listing(differing)})")
    if num_classes is not None and first.names and len(first.names) != num_classes:
        raise DataError(
            f"{first.place} has {len(first.names)} classes ({listing(first.names)}), but {num_classes} are declared"
        )
    classes = in_numerical_order(first.names)

    def encoded(name: str, shards: Sequence[Shard]) -> EncodedSplit:
        def read() -> Iterator[EncodedImage]:
            return (image for shard in shards for image in _images(shard, classes))

        return EncodedSplit(name, sum(shard.size for shard in shards), read)

    return encoded(names[0], train), encoded(names[1], test), classes


def parquet_shard(file: Path, columns: Columns) -> Shard:
    """A Parquet file, of which only the description is read.

    Raises:
        DataError: it is no Parquet file, or has not the columns that it should.
    """
    import datasets
    from pyarrow.parquet import ParquetFile

    with _naming(file), ParquetFile(file) as opened:
        features = datasets.Features.from_arrow_schema(opened.schema_arrow)
        size = opened.metadata.num_rows
        image, label = columns.find(features)

    def batches() -> Iterator[Any]:
        with _naming(file), ParquetFile(file) as opened:
            yield from opened.iter_batches(_ROWS_AT_ONCE, columns=[image, label])

    return Shard(str(file), _names(features[label]), size, image, label, batches, file.parent)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Says which file it is that cannot be read."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{file} {error}") from error
    except (OSError, ValueError) as error:  # most errors of pyarrow are one of them
        raise DataError(f"{file} cannot be read as Parquet ({' '.join(str(error).split())[:120]})") from error


def hub_shard(split: Any, place: str, columns: Columns) -> Shard:
    """A split that `datasets` has loaded.

    Raises:
        DataError: it has not the columns that it should.
    """
    import datasets

    try:
        image, label = columns.find(split.features)
    except DataError as error:
        raise DataError(f"{place} {error}") from error
    rows = split.select_columns([image, label]).cast_column(image, datasets.Image(decode=False)).with_format("arrow")

    def batches() -> Iterator[Any]:
        for table in rows.iter(batch_size=_ROWS_AT_ONCE):
            yield from table.combine_chunks().to_batches()

    return Shard(place, _names(split.features[label]), len(split), image, label, batches, Path())


def _names(feature: Any) -> tuple[str, ...]:
    return tuple(getattr(feature, "names", None) or ())  # plain integers have no names


def _images(shard: Shard, classes: Sequence[str]) -> Iterator[EncodedImage]:
    import datasets

    renumbered = [classes.index(name) for name in shard.names]
    done = 0
    for batch in shard.batches():
        records = datasets.Image().cast_storage(batch.column(shard.image)).to_pylist()
        labels = _labels(batch.column(shard.label), shard, done)
        for number, (record, label) in enumerate(zip(records, labels, strict=True), start=done):
            # Labels out of range stay as they are, to be refused: an index of -1 would make them the last class.
            known = renumbered[label] if 0 <= label < len(renumbered) else label
            yield EncodedImage(_content(record, shard.folder), known, f"row {number} of {shard.place}")
        done += batch.num_rows


def _labels(column: Any, shard: Shard, first: int) -> list[int]:
    """An Arrow column as numbers, exactly, of whichever integer type it is."""
    import pyarrow

    if not pyarrow.types.is_integer(column.type):
        raise DataError(f"labels must be integers, but column '{shard.label}' of {shard.place} holds {column.type}")
    if column.null_count:
        missing = first + column.is_null().to_pylist().index(True)
        raise DataError(f"row {missing} of {shard.place} has no label")
    return column.to_pylist()


def _content(record: Mapping[str, Any] | None, folder: Path) -> bytes | Path | None:
    if record is None:
        return None
    if record["bytes"] is None and record["path"] is not None:
        return folder / record["path"]
    return record["bytes"]
