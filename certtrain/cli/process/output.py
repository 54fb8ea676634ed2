"""What is printed where the terminal, or the file behind it, knows few characters."""

from __future__ import annotations

import codecs
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

HANDLER = "certtrain.legible"
# What stands in for characters that are printed; tables get their lines from rich, which knows of such terminals.
STANDINS = {
    **{"±": "+-", "×": "x", "·": "*", "–": "-", "—": "-", "…": "...", "→": "->", "≤": "<=", "≥": ">=", "∞": "inf"},
    **{"━": "-", "─": "-", "│": "|", "█": "#"},
    **{"σ": "sigma", "ε": "eps", "κ": "kappa", "‘": "'", "’": "'", "“": '"', "”": '"', "•": "*"},
}


def legible(error: UnicodeError) -> tuple[str, int]:
    """Handles characters that an encoding lacks: signs by what they mean, letters by a question mark.

    A letter without its accent would name another file; a shell takes the question mark for any letter.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(STANDINS.get(c, "?") for c in error.object[error.start : error.end]), error.end


def tolerate_any_encoding() -> None:
    """Lets standard output and standard error print everything, whatever their encoding."""
    codecs.register_error(HANDLER, legible)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


@contextmanager
def while_somebody_reads() -> Iterator[None]:
    """Inside, what is shown may be cut off by its reader, as `head` does; for what writes nothing else."""
    before, logging.raiseExceptions = logging.raiseExceptions, False  # Hydra shows by way of a log
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        logging.raiseExceptions = before
