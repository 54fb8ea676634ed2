"""Decoded images of local files, kept for the next run: decoding takes longer than many a training.

What is kept is known by the content of the files that it was made of, so a file that is changed, added or renamed leads
to other data, and a copy elsewhere to the same. Nothing depends on what is kept: where it cannot be written or is
damaged, files are decoded.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import torch

from certtrain.cache import Cache, is_off
from certtrain.data.encoded import EncodedImage, EncodedSplit
from certtrain.data.source import ArrayPair, Splits

# Counts up when other pixels or labels are made of the same files.
_VERSION = 1
_KEPT = Cache("decoded", ".pt")
_DIGITS = 32
_BLOCK = 1 << 20
# What files hold does not change without their size or time: within a process they are read once for their digest.
_known: dict[tuple[object, ...], str] = {}


def key_of(described: object, files: Sequence[Path], folder: Path) -> str:
    """What tells decoded data from others.

    Args:
        described: Everything but the files that they depend on; its repr counts.
        files: In the order in which they are read.
        folder: Where they are; only their place in it counts.

    Raises:
        OSError: If one of them cannot be read.
    """
    found = sha256(f"{_VERSION} {version('pillow')} {described!r}".encode())
    for file in files:
        found.update(f"{os.path.relpath(file, folder)}\0{_digest(file)}\0".encode(errors="surrogateescape"))
    return found.hexdigest()[:_DIGITS]


def is_kept(key: str) -> bool:
    """Whether something is kept, as it was made."""
    try:
        return not is_off() and _KEPT.find(key) is not None
    except OSError:
        return False


def find(key: str) -> Splits | None:
    """What is kept; None if nothing is, or not as it was made."""
    if is_off():
        return None
    try:
        path = _KEPT.find(key)
        if path is None:
            return None
        kept = torch.load(path, weights_only=True)
        train, test = (ArrayPair(*pair) for pair in (kept["train"], kept["test"]))
        return Splits(train, test, tuple(kept["classes"]), tuple(kept["notes"]))
    except Exception:  # of torch, which reads files in many ways: decoding is always possible
        return None


def keep(key: str, splits: Splits) -> None:
    """Keeps decoded data, where there is room."""
    if is_off():
        return
    pairs = {name: (pair.inputs, pair.labels) for name, pair in (("train", splits.train), ("test", splits.test))}
    told = {**pairs, "classes": list(splits.classes), "notes": list(splits.notes)}
    with suppress(OSError, RuntimeError):  # a full disk; torch.save has words of its own for it
        _KEPT.store(key, lambda path: torch.save(told, path))


class Watch:
    """Looks whether images are read from other files than those that a key is made of.

    Args:
        files: Those.

    Attributes:
        elsewhere: Whether one was.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = frozenset(files)
        self.elsewhere = False

    def over(self, split: EncodedSplit) -> EncodedSplit:
        """The same split, watched."""
        return replace(split, images=self._watched(split.images))

    def _watched(self, images: Callable[[], Iterator[EncodedImage]]) -> Callable[[], Iterator[EncodedImage]]:
        def read() -> Iterator[EncodedImage]:
            for image in images():
                self.elsewhere |= isinstance(image.content, Path) and image.content not in self._files
                yield image

        return read


def _digest(file: Path) -> str:
    state = file.stat()
    mark = (os.fspath(file.resolve()), state.st_size, state.st_mtime_ns, state.st_ino)
    if mark not in _known:
        found = sha256()
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                found.update(block)
        _known[mark] = found.hexdigest()
    return _known[mark]
