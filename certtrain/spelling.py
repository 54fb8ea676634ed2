"""What may have been meant by a word that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# Share of letters that two words have in common, in the same order. Below, a hint is a guess: 'nope' and 'zonotope'
# share 0.67.
SIMILAR = 0.78
SHORTEST_BEGINNING = 3


def did_you_mean(word: str, legal: Iterable[str]) -> str:
    """A hint at the word of a list that was misspelt or begun; nothing where no word is near."""
    return _hint(_near(word, list(legal)))


def did_you_mean_key(key: str, legal: Iterable[str]) -> str:
    """A hint at a dotted key: one that is spelt nearly the same, or the keys of this name in another node."""
    keys = list(legal)
    name = _last(key)
    # A node in common is much in common, and says nothing about the name.
    if near := [other for other in _near(key, keys) if _last(other) == other or _near(name, [_last(other)])]:
        return _hint(near)
    names = {_last(other) for other in keys}
    ends = {other for other in names if other == name or other.endswith(f"_{name}")}
    meant = ends or set(_near(name, sorted(names)))
    return _hint([other for other in keys if _last(other) in meant])


def _near(word: str, legal: Sequence[str]) -> list[str]:
    swapped = [other for other in legal if sorted(other) == sorted(word.lower())]
    close = difflib.get_close_matches(word, legal, n=1, cutoff=SIMILAR)
    begun = [other for other in legal if len(word) >= SHORTEST_BEGINNING and other.startswith(word)]
    return swapped or close or begun


def _last(key: str) -> str:
    return key.replace("/", ".").rsplit(".", 1)[-1]


def _hint(words: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(words)}?" if 0 < len(words) <= 3 else ""
