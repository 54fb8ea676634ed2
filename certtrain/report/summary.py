"""summary.json: the numbers of a run and what run it is, for people and scripts; it needs no other file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from certtrain.errors import CerttrainError, DataError
from certtrain.files import replacing
from certtrain.report.origin import versions
from certtrain.report.rows import title

STAGES = ("prediction", "attack")
ACCURACIES = ("natural_accuracy", "attacked_accuracy", "certified_accuracy")
# Of `certtrain.report.identity.identify`; what nobody knows of a network is None.
IDENTITY = (
    *("model", "model_options", "loss", "loss_options"),
    *("relaxation", "backend", "relaxation_options", "method", "method_options", "eps", "seed"),
)
# Of where it comes from: see `certtrain.report.origin`.
ORIGIN = ("command", "overrides", "commit", "hardware")

# Types, and their name for people.
_Shape = tuple[tuple[type, ...], str]
_NUMBER: _Shape = ((int, float), "number")
_TABLE: _Shape = ((dict,), "table")
_LIST: _Shape = ((list,), "list")
# What a reader relies on where a summary has it, whichever version wrote it.
SHAPES: Mapping[str, _Shape] = MappingProxyType(
    {
        **dict.fromkeys((*ACCURACIES, "images", "eps", "trained_eps", "train_seconds", "certify_seconds"), _NUMBER),
        **dict.fromkeys(("certified_accuracy_by", "statuses", "verifiers", *STAGES, "config"), _TABLE),
        **dict.fromkeys(("stages", "failures"), _LIST),
    }
)


class CertificationFailed(CerttrainError):
    """Something that was to judge images failed on some; what else was found stands in the run directory."""


def write_summary(
    path: str | os.PathLike[str],
    *,
    result: Mapping[str, Any],
    identity: Mapping[str, Any],
    train_seconds: float | None,
    certify_seconds: float | None,
    parameters: int,
    origin: Mapping[str, Any] = MappingProxyType({}),
    config: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    checkpoint: str | None = None,
    trained_eps: float | None = None,
    unaveraged: Mapping[str, Any] | None = None,
    validated_by: str | None = None,
) -> dict[str, Any]:
    """Writes summary.json, replacing it at once.

    Args:
        path: The file; its folder exists.
        result: What `certtrain.certify.summarize` counted; empty if nothing was certified.
        identity: What `certtrain.report.identity.identify` says of the run; None under a key that is not known. Its
            eps is the radius that was certified, in pixel units.
        train_seconds: Wall-clock time of training; None if nothing was trained.
        certify_seconds: Wall-clock time of certification; None if nothing was certified.
        parameters: Number of trainable parameters.
        origin: command, overrides, commit and hardware, as far as they are known, and what else is to be told of where
            the run comes from.
        config: The resolved configuration, so that this file says all that config.yaml says; None leaves it out.
        data: What `certtrain.data.fingerprint.describe_data` says; None where it is not known.
        checkpoint: Name of the file whose weights were judged; None where it is not known.
        trained_eps: The radius that was trained for, where it is not `eps` that was.
        unaveraged: What was counted of the weights that an average is compared with; None where nothing was averaged.
        validated_by: The relaxation by which validation certified, and chose the checkpoint; None where nothing was.

    Returns:
        What was written: `title`, what identifies the run and where it comes from; accuracies as fractions of 1, None
        where there is none or where it was not finite; beside them `prediction`, `attack` and, by name, `verifiers`:
        how many images each judged, failed on and skipped; and `stages`, what each of these settled in how long.
    """
    record = finite(
        {
            **{name: identity.get(name) for name in IDENTITY},
            **({} if trained_eps in (None, identity.get("eps")) else {"trained_eps": trained_eps}),
            **{name: result.get(name) for name in ACCURACIES},
            "certified_accuracy_by": dict(result.get("certified_accuracy_by", {})),
            "images": result.get("images", 0),
            "data": data,
            "statuses": dict(result.get("statuses", {})),
            **{stage: dict(result[stage]) for stage in STAGES if stage in result},
            "verifiers": dict(result.get("verifiers", {})),
            "stages": list(result.get("stages", [])),
            "cascade": result.get("cascade"),
            "failures": list(result.get("failures", [])),
            "train_seconds": train_seconds,
            "certify_seconds": certify_seconds,
            "parameters": parameters,
            "checkpoint": checkpoint,
            **({} if validated_by is None else {"validated_by": validated_by}),
            **({} if unaveraged is None else {"unaveraged": {name: unaveraged.get(name) for name in ACCURACIES}}),
            **dict.fromkeys(ORIGIN),
            **origin,
            "versions": versions(),
            **({} if config is None else {"config": config}),
        }
    )
    record = {"title": title(record), **record}
    with replacing(Path(path)) as partial:
        partial.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return record


def read_summary(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_summary` wrote.

    Raises:
        DataError: If the file is missing or holds something else.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no summary of a run: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} is no summary of a run: it holds no object")
    for name, (kind, words) in SHAPES.items():
        if record.get(name) is not None and not isinstance(record[name], kind):
            raise DataError(f"{path} is no summary of a run: {name} is no {words}")
    return record


def check_failures(record: Mapping[str, Any]) -> None:
    """Refuses to call a certification complete in which something failed, whatever became of the images.

    Exhausted time is none of it: who sets a limit has asked for it, and the counts say how often it was reached.

    Args:
        record: What stands in summary.json.

    Raises:
        CertificationFailed: One line that says what failed, on how many images and why.
    """
    found = [
        f"{row['stage']} failed on {row['images']:,} of {record.get('images', 0):,} images ({row['message']})"
        for row in record.get("failures") or ()
        if row["kind"] != "timeout"
    ]
    if found:
        raise CertificationFailed(f"the certification is incomplete: {'; '.join(found)}")


def accuracies_of(record: Mapping[str, Any]) -> str:
    """The accuracies of a record, for people: "natural 97.50 %, attacked 93.06 %, certified 91.67 %"."""
    named = [(name.removesuffix("_accuracy"), record.get(name)) for name in ACCURACIES]
    return ", ".join(f"{name} {100 * value:.2f} %" for name, value in named if value is not None)


def finite(value: Any) -> Any:
    """The same containers with None for numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
