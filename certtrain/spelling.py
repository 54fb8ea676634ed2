"""Hints at what may have been meant: only where a word is nearly right."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

# Of 1. "nope" and "zonotope" have 0.67, "depoly" and "deeppoly" 0.86.
SIMILAR = 0.75
SHORTEST_BEGINNING = 3


def did_you_mean(word: str, legal: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest legal word, or nothing where none is near.

    A word is near that is almost the same, has the same letters in another order, or begins with what was typed.
    """
    scores = {other: _similarity(word.casefold(), other.casefold()) for other in legal}
    best = max(scores, key=lambda other: scores[other], default="")
    return f"; did you mean {best}?" if best and scores[best] >= SIMILAR else ""


def _similarity(word: str, other: str) -> float:
    if sorted(word) == sorted(other):
        return 1.0
    if len(word) >= SHORTEST_BEGINNING and other.startswith(word):
        return SIMILAR + (1 - SIMILAR) * len(word) / len(other)
    return SequenceMatcher(None, word, other).ratio()
