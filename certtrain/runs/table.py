"""A table of runs: every directory is read, or listed with the reason why it cannot be."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.cli.rundir.directory import RunDirectory
from certtrain.errors import CerttrainError, DataError
from certtrain.nodes import flatten
from certtrain.report.certifications import FOLDER
from certtrain.report.collect_read import CARRIED_OUT, CONFIG, CONTENT, PLACES, SUMMARY, is_where_from, read_run
from certtrain.report.summary import ACCURACIES, read_summary
from certtrain.runs.frames import by_verifier
from certtrain.runs.state import State, state_of
from certtrain.sweep.jobs import TRACEBACK

if TYPE_CHECKING:
    import pandas

# Settings that every table has, whether or not they differ.
ALWAYS = ("data.name", "method", "relaxation.name", "eps", "seed")
# What summary.json says beside accuracies.
RESULTS = ("images", "parameters", "train_seconds", "certify_seconds")
# Folders in run directories, none of which holds a run.
INSIDE = frozenset({"checkpoints", "wandb", "ranks", "export", "landscape", "analysis", FOLDER})

Pattern = str | os.PathLike[str]


def runs(pattern: Pattern | Iterable[Pattern] = "outputs/**") -> pandas.DataFrame:
    """All runs at or below some directories: sweeps, single runs, unfinished and damaged ones.

    Args:
        pattern: A directory, or a pattern of them as in a shell, such as "outputs/**" or "outputs/multirun/*/0"; or
            several.

    Returns:
        Index `directory`, in order of names; `certtrain.Run.load` takes it. Columns: `state` (finished, failed,
        interrupted, running, damaged: see `certtrain.runs.state.State`), the settings that differ among the runs under
        their keys, with data, method, relaxation, eps and seed in any case; the results under the names that
        summary.json has for them (accuracies are fractions of 1; certified ones of single verifiers under
        `certified_accuracy_by.V`), and `reason`, why one is no further. Missing where a run has no such key or result.

    Raises:
        DataError: If there is no such directory; one line.
    """
    import pandas

    places = sorted({place for root in _roots(pattern) for place in _places(root)}, key=_by_number)
    read = [_read(place) for place in places]
    keys = _columns([settings for _, settings, _ in read])
    results = [*ACCURACIES, *_verifiers(read), *RESULTS]
    rows = [
        {
            "directory": str(place),
            "state": state.name,
            **{key: settings.get(key) for key in keys},
            **{name: found.get(name) for name in results},
            "reason": state.reason,
        }
        for place, (state, settings, found) in zip(places, read, strict=True)
    ]
    return pandas.DataFrame(rows, columns=["directory", "state", *keys, *results, "reason"]).set_index("directory")


def _roots(pattern: Pattern | Iterable[Pattern]) -> Iterator[Path]:
    for one in [pattern] if isinstance(pattern, (str, os.PathLike)) else pattern:
        text = os.path.expanduser(os.fspath(one))
        # What is below is looked through anyway.
        text = re.sub(r"(/\*\*)+/?$", "", text) or "/"
        if text == "**":
            text = "."
        found = [text] if os.path.isdir(text) else glob(text, recursive=True) if has_magic(text) else []
        folders = [Path(path) for path in found if os.path.isdir(path)]
        if not folders:
            raise DataError(f"runs: there is no directory '{os.fspath(one)}' (looked from {Path.cwd()})")
        yield from folders


def _places(root: Path) -> Iterator[Path]:
    """Run directories at or below a directory; links are followed, and no directory counts twice."""
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        is_run = any(name in files for name in (CONFIG, SUMMARY, TRACEBACK))
        folders[:] = [name for name in folders if not name.startswith(".") and not (is_run and name in INSIDE)]
        if is_run:
            yield Path(place)


def _by_number(place: Path) -> list[Any]:
    """Job 2 of a sweep comes before job 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(place))]


def _read(place: Path) -> tuple[State, dict[str, Any], dict[str, Any]]:
    """State, settings and results of a directory, as much as can be read."""
    state = state_of(place)
    settings = {key: _hashable(value) for key, value in flatten(RunDirectory(place).configuration())}
    if not (place / SUMMARY).is_file():
        return state, settings, {}
    try:
        found = read_summary(place / SUMMARY)
        read_run(place)  # the judge of what is damaged, or belongs to another run
    except CerttrainError as error:
        return State("damaged", str(error)), settings, {}
    # Data of one's own all have the same names: they are told apart by what they are.
    data = found.get("data")
    known = {CONTENT: data.get("content")} if isinstance(data, dict) else {}
    return state, settings | known, found | by_verifier(found)


def _columns(settings: list[dict[str, Any]]) -> list[str]:
    """Keys of the settings that differ, and those that are always told."""
    ignored = (CARRIED_OUT | PLACES) - {"seed"}
    keys = dict.fromkeys(key for each in settings for key in each)
    shown = [key for key in keys if key not in ignored and key.split(".")[0] not in ignored and not is_where_from(key)]
    known = [each for each in settings if each]  # a directory without a configuration differs in nothing
    differing = [key for key in shown if len({json.dumps(each.get(key, "\0"), default=str) for each in known}) > 1]
    return [*ALWAYS, *(key for key in differing if key not in ALWAYS)]


def _verifiers(read: list[tuple[State, dict[str, Any], dict[str, Any]]]) -> list[str]:
    names = (name for _, _, found in read for name in found if name.startswith("certified_accuracy_by."))
    return list(dict.fromkeys(names))


def _hashable(value: Any) -> Any:
    """Lists as tuples, which tables can group by."""
    if isinstance(value, list):
        return tuple(_hashable(item) for item in value)
    return str(value) if isinstance(value, Mapping) else value
