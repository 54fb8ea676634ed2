"""Which W&B run belongs to a run directory, and what of the directory it holds already."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from certtrain.errors import ConfigError
from certtrain.files import naming, replacing

ID, MARKER = "wandb_id.txt", "wandb_sync.json"
# What a W&B run is made of, below the run directory.
SENT = ("config.yaml", "metrics.jsonl", "summary.json", "ledger*.jsonl", "ledger*.counterexamples/*.npy")
# Folders of the run directory whose pictures belong to it; the first one is itself.
PICTURES = (".", "landscape", "analysis", "certifications/*")


def begin_identity(directory: Path) -> str:
    """The id of a run that begins or goes on here; a new one is noted before anything is logged.

    Raises:
        ConfigError: If a file of this name holds something else.
    """
    return _noted(directory) or _note(directory, _digest(str(directory.resolve()), str(time.time_ns())))


def identity(directory: Path) -> str:
    """The id of a recorded run.

    It is the one that is noted there; where none is, it follows from the record itself (the configuration, and the
    first row of metrics.jsonl with its times), so that two copies of a directory are one run.

    Raises:
        ConfigError: If a file of this name holds something else.
    """
    if (noted := _noted(directory)) is not None:
        return noted
    parts = [(directory / "config.yaml").read_text(encoding="utf-8", errors="replace")]
    metrics = directory / "metrics.jsonl"
    if metrics.is_file():
        with metrics.open(encoding="utf-8", errors="replace") as file:
            parts.append(file.readline())
    if len(parts) == 1 or not parts[1].endswith("\n"):  # nothing was logged: only the place tells it from others
        parts = [parts[0], str(directory.resolve())]
    return _note(directory, _digest(*parts))


def forget(directory: Path) -> None:
    """Gives a directory a new id, and forgets what was sent under the old one."""
    (directory / MARKER).unlink(missing_ok=True)
    _note(directory, _digest(str(directory.resolve()), str(time.time_ns())))


@dataclass(frozen=True)
class Sent:
    """What a W&B run holds.

    Attributes:
        id: Of the W&B run.
        target: Where it is: entity/project, or "offline".
        digest: Of the files that it was made from.
    """

    id: str
    target: str
    digest: str

    def write(self, directory: Path) -> None:
        """Notes it in the run directory."""
        with replacing(directory / MARKER) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def sent(directory: Path) -> Sent | None:
    """What was noted; None where nothing was, or nothing that can be read: then it is sent again."""
    try:
        found = json.loads((directory / MARKER).read_text(encoding="utf-8"))
        return Sent(str(found["id"]), str(found["target"]), str(found["digest"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def digest_of(directory: Path) -> str:
    """Changes with every file that a W&B run is made from."""
    total = sha256()
    for file in (*_files(directory), *pictures(directory)):
        total.update(f"{file.relative_to(directory)}\0{file.stat().st_size}\0".encode())
        total.update(sha256(file.read_bytes()).digest())
    return total.hexdigest()


def pictures(directory: Path) -> list[Path]:
    """What was drawn of a run."""
    return sorted(file for folder in PICTURES for file in directory.glob(f"{folder}/*.png"))


def _files(directory: Path) -> Iterator[Path]:
    for pattern in SENT:
        yield from sorted(file for file in directory.glob(pattern) if file.is_file())


def _noted(directory: Path) -> str | None:
    file = directory / ID
    if not file.is_file():
        return None
    run_id = file.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch(r"[\w-]{1,64}", run_id, re.ASCII):
        raise ConfigError(f"{file} holds no id of a W&B run: without this file the run gets a new one")
    return run_id


def _note(directory: Path, run_id: str) -> str:
    file = directory / ID
    with naming(file):
        file.write_text(run_id + "\n", encoding="utf-8")
    return run_id


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()[:16]
