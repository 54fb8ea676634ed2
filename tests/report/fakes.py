"""Verdicts, summaries, consoles that write to memory, and what a PNG begins with."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from certtrain.certify import Failure, Verdict, summarize
from certtrain.report import write_summary
from certtrain.report.summary import IDENTITY

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


VERDICTS = [
    verdict(0, "verified", 0.5, 0.7),
    verdict(1, "verified", -90.0, 0.2),
    verdict(2, "falsified", -3.0, -0.4),
    verdict(3, "misclassified"),
    verdict(4, "error", -1.0, None, message="deeppoly: RuntimeError: <b>odd</b> & bad"),
]


def summary(path: Path, result: dict | None = None, **change) -> dict:
    """What is written of these verdicts, or of another result."""
    told = {"relaxation": "hbox", "method": "pgpe", "eps": 0.1, "seed": 7, "backend": "native"}
    told |= {key: change.pop(key) for key in list(change) if key in IDENTITY}
    given = {"train_seconds": 12.5, "certify_seconds": 3.0, "parameters": 1234, "identity": told}
    return write_summary(path, result=summarize(VERDICTS) if result is None else result, **given | change)


def console(terminal: bool = False, width: int = 100) -> Console:
    """A console whose text is in `file.getvalue()`."""
    return Console(file=StringIO(), width=width, force_terminal=terminal)
