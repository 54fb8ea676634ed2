"""What is printed where the terminal, or the file behind it, knows few characters."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from io import TextIOWrapper

HANDLER = "certtrain.legible"
# What stands in for characters that are printed; tables get their lines from rich, which knows of such terminals.
STANDINS = {
    **{"±": "+-", "×": "x", "·": "*", "–": "-", "—": "-", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "∞": "inf"},
    **{"━": "-", "─": "-", "│": "|", "█": "#"},
    **{"σ": "sigma", "ε": "eps", "κ": "kappa", "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*"},
}


def legible(error: UnicodeError) -> tuple[str, int]:
    """Handles characters that an encoding lacks: something near, else a question mark; never an exception."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_standin, error.object[error.start : error.end])), error.end


def _standin(character: str) -> str:
    if character in STANDINS:
        return STANDINS[character]
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


def tolerate_any_encoding() -> None:
    """Lets standard output and standard error print everything, whatever their encoding."""
    codecs.register_error(HANDLER, legible)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=HANDLER)
