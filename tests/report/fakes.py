"""Verdicts, consoles that write to memory, and what a PNG begins with."""

from io import StringIO

from rich.console import Console

from certtrain.certify import Failure, Verdict

PNG = b"\x89PNG\r\n\x1a\n"


def verdict(index: int, status: str, ibp: float | None = None, deeppoly: float | None = None, **other) -> Verdict:
    """A verdict of two verifiers on an image of class 0."""
    by = next((name for name, m in (("ibp", ibp), ("deeppoly", deeppoly)) if m is not None and m > 0), None)
    margins = {} if status == "misclassified" else {"ibp": ibp, "deeppoly": deeppoly}
    given = {"predicted": 1 if status == "misclassified" else 0} | other
    message = other.get("message")
    failures = {} if message is None else {"deeppoly": Failure("error", message.removeprefix("deeppoly: "))}
    found_by = "attack" if status == "falsified" else None
    return Verdict(
        index, 0, given["predicted"], status, by, None, 0.1, margins, message, failures=failures, falsified_by=found_by
    )


def console(terminal: bool = False, width: int = 100) -> Console:
    """A console whose text is in `file.getvalue()`."""
    return Console(file=StringIO(), width=width, force_terminal=terminal)
