"""Image files in one folder per class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from certtrain.data.encoded import EncodedImage, EncodedSplit
from certtrain.data.layout import files_below, visible
from certtrain.errors import DataError

_SHOWN = 3


@dataclass(frozen=True)
class ClassFolders:
    """The folders of two splits.

    Attributes:
        train: the training images.
        test: the test images.
        classes: the names of the folders, in the order of their labels.
        notes: what else was found in them, for people.
    """

    train: EncodedSplit
    test: EncodedSplit
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def open_class_folders(train: Path, test: Path, num_classes: int | None) -> ClassFolders:
    """Lists the images of two folders of class folders; an image may be at any depth inside the folder of its class.

    Both splits get the same labels: the names of all their class folders in alphabetical order, or in that of numbers
    if all are numbers. Any number of classes is right where None is declared.

    Raises:
        DataError: an image lies in no class folder, or there are not as many classes as declared.
        OSError: a folder cannot be listed.
    """
    splits = (train, test)
    folders = {split: [entry for entry in visible(split) if entry.is_dir()] for split in splits}
    classes = in_numerical_order(sorted({folder.name for split in splits for folder in folders[split]}))
    listed = {split: {folder.name: list(files_below(folder)) for folder in folders[split]} for split in splits}
    images = {split: {name: image_files(files) for name, files in listed[split].items()} for split in splits}
    for split in splits:
        if loose := image_files([entry for entry in visible(split) if not entry.is_dir()]):
            raise DataError(f"{loose[0]} lies in no folder of a class")
    if num_classes is not None and len(classes) != num_classes:
        raise DataError(f"{train.parent} " + _other_number(classes, num_classes, images[train], images[test]))
    others = [
        file.name
        for split in splits
        for name, files in listed[split].items()
        for file in sorted(set(files).difference(images[split][name]))
    ]
    notes = (f"not images by name, and not used: {listing(others)}",) if others else ()

    def encoded(split: Path) -> EncodedSplit:
        rows = [(file, label) for label, name in enumerate(classes) for file in images[split].get(name, ())]

        def read() -> Iterator[EncodedImage]:
            return (EncodedImage(file, label, str(file)) for file, label in rows)

        return EncodedSplit(split.name, len(rows), read)

    return ClassFolders(encoded(train), encoded(test), classes, notes)


def image_files(files: Sequence[Path]) -> list[Path]:
    """Those of some files that are images by name, in whatever format Pillow reads."""
    from PIL import Image

    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return [file for file in files if file.suffix.casefold() in endings]


def in_numerical_order(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, sorted by value if all are numbers (2 before 10), and as they are otherwise."""
    return tuple(sorted(names, key=lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else names)


def listing(names: Sequence[str]) -> str:
    """A few names and how many there are."""
    return ", ".join(names[:_SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > _SHOWN else "")


def _other_number(
    classes: Sequence[str], declared: int, train: dict[str, list[Path]], test: dict[str, list[Path]]
) -> str:
    """What is wrong with the number of classes, and which of them may be the reason."""
    suspects = {
        "only in training": [name for name in classes if name not in test],
        "only in test": [name for name in classes if name not in train],
        "without images": [name for name in classes if not train.get(name) and not test.get(name)],
    }
    some = "; ".join(f"{what}: {listing(names)}" for what, names in suspects.items() if names)
    return f"has {len(classes)} classes ({listing(classes)}), but {declared} are declared" + (
        f" ({some})" if some else ""
    )
