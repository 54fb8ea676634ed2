"""The ledger: one JSON line per image, so that a restart skips finished images.

Processes that share the work have a ledger each, `ledger-0-of-4.jsonl` and so on, which are read together.

Rows are appended as verdicts are made. Beside `ledger.jsonl` stands `ledger.meta.json` with the settings that
its verdicts depend on, and in every row a digest of its image. Verdicts of other settings or about other images
are never mixed in. Rows that certtrain wrote before it noted every failure are completed when they are read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from certtrain.certify.counterexamples import read_counterexample, write_counterexample
from certtrain.certify.shard import WHOLE, Shard
from certtrain.certify.verdict import ATTACK, PREDICTION, Verdict
from certtrain.errors import ConfigError, DataError
from certtrain.files import naming, replacing

Settings = Mapping[str, Any]
# What the verdicts of ledgers depend on that do not say so.
BEFORE = {"cascade": "all"}


def read_ledger(path: str | os.PathLike[str]) -> list[Verdict]:
    """The verdicts in a ledger, and in those of its shards beside it; none if there is no such file.

    They are in the order in which they were made, those of one shard after those of another, one for each image: of
    several rows about an image the last one counts. A last line that is not complete, as a killed process leaves it,
    is dropped.

    Raises:
        DataError: If any other line is no verdict, or does not say which image it is about.
    """
    rows = [verdict for file in _together(Path(path)) for verdict in _read(file)[0]]
    return list({verdict.index: verdict for verdict in rows}.values())


def merge_ledger(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Writes a ledger and those of its shards as one, image after image, with its settings and counterexamples.

    Args:
        path: The ledger; see `read_ledger`.
        target: The new file, replaced if there is one; what belongs to it stands beside it.

    Returns:
        How many verdicts it has. Without any, nothing is written, nor where the target is the ledger itself.

    Raises:
        DataError: If the ledger is damaged, or a counterexample that it names is missing.
    """
    source, target = Path(path), Path(target)
    verdicts = sorted(read_ledger(source), key=lambda verdict: verdict.index)
    if not verdicts or source.resolve() == target.resolve():
        return 0
    points = {verdict.index: read_counterexample(source, verdict) for verdict in verdicts}
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = [_kept(target, verdict, points[verdict.index]) for verdict in verdicts]
    settings = next((meta for file in _together(source) if (meta := meta_path(file)).is_file()), None)
    if settings is not None:
        with replacing(meta_path(target)) as partial:
            partial.write_bytes(settings.read_bytes())
    with replacing(target) as partial:
        partial.write_text("".join(map(_line, rows)), encoding="utf-8")
    return len(rows)


def read_verifiers(path: str | os.PathLike[str]) -> list[str] | None:
    """Names of the verifiers that a ledger's verdicts are by, also of those that no image needed.

    Returns:
        The names in the order in which they were asked; None where the settings beside the ledger are missing
        or cannot be read.
    """
    for file in _together(Path(path)):
        try:
            described = json.loads(meta_path(file).read_text(encoding="utf-8"))["verifiers"]
            return [verifier.partition(": ")[0] for verifier in described]  # as in `Verifier.describe`
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
    return None


def shard_path(path: Path, shard: Shard) -> Path:
    """Where a shard of the images has its verdicts: ledger.jsonl -> ledger-0-of-4.jsonl."""
    return path.with_name(f"{path.stem}-{shard.rank}-of-{shard.ranks}{path.suffix}") if shard.ranks > 1 else path


def _together(path: Path) -> list[Path]:
    """A ledger, whether or not it is there, and those of its shards."""
    pattern = re.compile(rf"{re.escape(path.stem)}-\d+-of-\d+{re.escape(path.suffix)}")
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    return [path, *sorted(file for file in beside if pattern.fullmatch(file.name))]


def meta_path(path: Path) -> Path:
    """Where the settings of a ledger stand: ledger.jsonl -> ledger.meta.json."""
    return path.with_name(f"{path.stem}.meta.json")


class Ledger:
    """A ledger open for appending.

    Args:
        path: The file; its folder is created.
        settings: What the verdicts depend on, as JSON values.
        shard: Which images are judged here.

    Attributes:
        verdicts: Index -> verdict, of all rows, those in ledgers of other shards among them.

    Raises:
        ConfigError: If the file holds verdicts of other settings, or of settings that are not known.
        DataError: If the file is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Settings, shard: Shard = WHOLE) -> None:
        self._path = shard_path(Path(path), shard)
        self.verdicts: dict[int, Verdict] = {}
        found = {file: _read(file) for file in dict.fromkeys((*_together(Path(path)), self._path))}
        for file, (verdicts, _) in found.items():
            if verdicts:
                _check_settings(file, settings)
            self.verdicts.update((verdict.index, verdict) for verdict in verdicts)
        rows, size = found[self._path]
        if not rows:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _write_settings(meta_path(self._path), settings)
        if self._path.is_file():
            os.truncate(self._path, size)  # else the next row would be appended to the torn one

    def append(self, verdicts: Iterable[Verdict], counterexamples: Mapping[int, Tensor | None] = {}) -> list[Verdict]:
        """Writes rows, complete and flushed when this returns.

        Args:
            verdicts: Of images that have none yet.
            counterexamples: Index -> a point that is kept beside the ledger.

        Returns:
            The verdicts, with the file that keeps their counterexample.
        """
        # First the points: a row promises that the file is there.
        new = [_kept(self._path, verdict, counterexamples.get(verdict.index)) for verdict in verdicts]
        with naming(self._path), self._path.open("a", encoding="utf-8") as file:
            for verdict in new:
                file.write(_line(verdict))
        self.verdicts.update((verdict.index, verdict) for verdict in new)
        return new


def _kept(ledger: Path, verdict: Verdict, point: Tensor | None) -> Verdict:
    """The verdict, with the file that keeps its counterexample beside a ledger, if there is one."""
    if point is None:
        return verdict
    return replace(verdict, counterexample=write_counterexample(ledger, verdict.index, point))


def _line(verdict: Verdict) -> str:
    return json.dumps(verdict.row(), allow_nan=False) + "\n"


def _read(path: Path) -> tuple[list[Verdict], int]:
    """Verdicts, and the number of bytes that hold them."""
    if not path.is_file():
        return [], 0
    content, verifiers = path.read_bytes(), read_verifiers(path) or []
    size = content.rfind(b"\n") + 1
    verdicts = []
    for number, line in enumerate(content[:size].splitlines(), start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError("no object")
            if "status" in row and "image" not in row:
                raise DataError(
                    f"{path} line {number} has no column 'image', so which image it is about is not known "
                    "(an older certtrain wrote it): remove the ledger or choose another"
                )
            verdicts.append(Verdict.from_row(row if "failures" in row else _completed(row, verifiers)))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path} line {number} is no verdict ({type(error).__name__}: {error})") from error
    return verdicts, size


def _completed(row: Mapping[str, Any], verifiers: Iterable[str]) -> dict[str, Any]:
    """A row without the columns `failures` and `eps`, and with what can be told of them from the others.

    Such a row has no margin for a verifier that failed, and no entry for one that was not started. Its message names
    what failed where that decided the status.
    """
    margins, status = row["margins"], row["status"]
    failed = [name for name, margin in margins.items() if margin is None]
    told = dict(part.partition(": ")[::2] for part in (row["message"] or "").split("; "))
    before = [stage for stage in (PREDICTION, ATTACK) if stage in told]
    unnoted = "not noted by the certtrain that wrote this row"
    kind = "oom" if status == "oom" else "error"
    failures = {stage: {"kind": kind, "message": told.get(stage) or unnoted} for stage in [*before, *failed]}
    if row["predicted"] == row["label"]:
        late = {"kind": "timeout", "message": "not started, the image's time was used up"}
        failures |= {name: late for name in verifiers if name not in margins}
    return {**row, "failures": failures, "eps": None}


def _check_settings(path: Path, settings: Settings) -> None:
    meta = meta_path(path)
    try:
        found = BEFORE | dict(json.loads(meta.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{path} holds verdicts but {meta.name} beside it cannot be read, so what they depend on is not "
            "known: remove the ledger or choose another"
        ) from error
    wanted = json.loads(json.dumps(settings))
    differences = [
        f"{name} {_short(found.get(name))} there, {_short(wanted.get(name))} here"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise ConfigError(
            f"{path} holds verdicts of other settings ({'; '.join(differences)}): remove it or choose another ledger"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _write_settings(path: Path, settings: Settings) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(settings, indent=2, allow_nan=False) + "\n", encoding="utf-8")
