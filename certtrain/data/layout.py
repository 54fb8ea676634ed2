"""Which files of a folder are the training split and which the test split, by the names at its top level alone.

Names further down are names of classes and images: a class may be called `train`, or an image `test`.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from certtrain.errors import DataError

# What people call a split, in three groups of words that mean the same.
_SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("train", "training"),
    ("validation", "valid", "val", "dev"),
    ("test", "testing", "eval", "evaluation"),
)
_VALIDATION, _TEST = _SYNONYMS[1], _SYNONYMS[2]
# Beside hidden files, what macOS puts into archives.
_CLUTTER = ("__MACOSX",)
_PARQUET = ".parquet"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")
_LETTER = r"[^\W\d_]"


@dataclass(frozen=True)
class Layout:
    """The two splits of a folder.

    Attributes:
        train: one folder, or Parquet files in the order of their names.
        test: the same.
        unused: what else lies beside them and might have been meant: folders and Parquet files, by name.
    """

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    unused: tuple[str, ...]


def find_layout(folder: Path, train_split: str, test_split: str) -> Layout:
    """Finds two splits at the top level of a folder, or of the only folder in it (or `data`), and so on.

    An entry is a split if its name begins with the split's, as `train`, `train-00000-of-00002.parquet` or `train2017`
    do for `train`; capitals do not matter. Of Parquet files, whose names may begin with anything, it is enough that
    they contain it, and no other split's, as a word. `train` may also be called `training`; `test` also `testing`,
    `eval` or `evaluation`; `validation` also `valid`, `val` or `dev` and, if there is none, as `test` may.

    Raises:
        DataError: there are not exactly these two, or it cannot be said which they are; one line.
        OSError: a folder cannot be listed.
    """
    words = {word: group for group in _SYNONYMS for word in group}
    for declared in (train_split, test_split):
        words.setdefault(declared.casefold(), (declared.casefold(),))
    level, entries, by_word = _top_level(folder, words)
    try:
        train, test = (_split(declared, by_word, words) for declared in (train_split, test_split))
    except DataError as error:
        raise DataError(f"{level} {error}") from error
    might = (entry for entry in entries if entry.is_dir() or _is_parquet(entry))
    return Layout(train, test, tuple(entry.name for entry in might if entry not in (*train, *test)))


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without hidden files and clutter.

    Raises:
        DataError: something in it is a link that leads nowhere.
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as found:
        names = sorted(entry.name for entry in found if not entry.name.startswith(".") and entry.name not in _CLUTTER)
    entries = [folder / name for name in names]
    for entry in entries:
        if not entry.exists():
            raise DataError(f"{entry} is a link that leads nowhere")
    return entries


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files at any depth below a folder, by name, without hidden ones and clutter; links are followed.

    Args:
        folder: where to look.
        above: the real paths of the folders on the way.

    Raises:
        DataError: a link leads nowhere, or to a folder that it lies in.
        OSError: a folder cannot be listed.
    """
    here = folder.resolve()
    if here in above:
        raise DataError(f"{folder} is a link to a folder that it lies in")
    for entry in visible(folder):
        if entry.is_dir():
            yield from files_below(entry, (*above, here))
        else:
            yield entry


def parquet_files(files: Sequence[Path]) -> list[Path]:
    """Those of some files that are Parquet files by name.

    Raises:
        DataError: they are called `...-00001-of-00003.parquet` and one of these is missing.
    """
    found = [file for file in files if _is_parquet(file)]
    shards: dict[tuple[Path, str, str], set[int]] = {}
    for file in found:
        if match := _SHARD.search(file.name):
            series = (file.parent, file.name[: match.start()], match[2])
            shards.setdefault(series, set()).add(int(match[1]))
    for (parent, stem, count), there in shards.items():
        if missing := sorted(set(range(int(count))) - there):
            name = f"{stem}-{missing[0]:05}-of-{count}{_PARQUET}"
            raise DataError(f"{parent / name} is missing: there are {len(there)} of {int(count)} such files")
    return found


def _is_parquet(path: Path) -> bool:
    return path.suffix.casefold() == _PARQUET and not path.is_dir()


def _top_level(folder: Path, words: Mapping[str, tuple[str, ...]]) -> tuple[Path, list[Path], dict[str, list[Path]]]:
    """The level at which splits are, all its entries, and those that a split's word stands for."""
    passed = set()
    while True:
        passed.add(folder.resolve())
        entries = visible(folder)
        by_word: dict[str, list[Path]] = {}
        for entry in entries:
            if (word := _word_of(entry, words)) is not None:
                by_word.setdefault(word, []).append(entry)
        folders = [entry for entry in entries if entry.is_dir()]
        inner = folders if len(folders) == 1 else [entry for entry in folders if entry.name == "data"]
        if by_word or not inner or inner[0].resolve() in passed:
            return folder, entries, by_word
        folder = inner[0]


def _word_of(entry: Path, words: Mapping[str, tuple[str, ...]]) -> str | None:
    """The word for a split in a name, if there is one."""
    if not (entry.is_dir() or _is_parquet(entry)):
        return None
    name = entry.name.casefold()
    first = [word for word in words if re.match(f"{re.escape(word)}(?!{_LETTER})", name)]
    if first:
        return max(first, key=len)
    if entry.is_dir():
        return None
    inside = [word for word in words if re.search(f"(?<!{_LETTER}){re.escape(word)}(?!{_LETTER})", name)]
    if len({words[word] for word in inside}) > 1:
        raise DataError(
            f"the name of {entry} contains {' and '.join(inside)}: let it begin with the split it belongs to"
        )
    return inside[0] if inside else None


def _split(
    declared: str, by_word: Mapping[str, Sequence[Path]], words: Mapping[str, tuple[str, ...]]
) -> tuple[Path, ...]:
    """The folder or the files of a split."""
    own = declared.casefold()
    group = words[own]
    # Who puts labelled images in the place of a hub's "valid" may well call them "test".
    for names in ((own,), group, _TEST if group == _VALIDATION else ()):
        found = [word for word in names if word in by_word]
        if len(found) > 1:
            raise DataError(f"has {' and '.join(found)}, which may all be the split '{declared}': leave one of them")
        if found:
            return _folder_or_files(found[0], by_word[found[0]])
    there = f", only {', '.join(by_word)}" if by_word else ""
    raise DataError(f"has no split '{declared}'{there}")


def _folder_or_files(word: str, entries: Sequence[Path]) -> tuple[Path, ...]:
    folders = [entry for entry in entries if entry.is_dir()]
    if not folders:
        return tuple(parquet_files(entries))
    exact = [entry for entry in folders if entry.name.casefold() == word]
    if len(folders) == len(entries) and 1 in (len(folders), len(exact)):
        return tuple(exact if len(exact) == 1 else folders)
    names = " and ".join(entry.name for entry in entries[:2])
    raise DataError(f"has {names}, which may both be the split '{word}': leave one of them")
