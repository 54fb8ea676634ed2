"""Finished runs, found and read: every directory is read, named as damaged, or named as unfinished."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from certtrain._paths import config_dir
from certtrain.earlier import ALWAYS, BEFORE
from certtrain.errors import DataError
from certtrain.nodes import flatten
from certtrain.report.certifications import FOLDER
from certtrain.report.summary import read_summary
from certtrain.report.told import told

CONFIG, SUMMARY = "config.yaml", "summary.json"
# The seed, and how a run was carried out: not what was run.
CARRIED_OUT = frozenset(
    {
        *("seed", "logger", "sweep", "resume", "checkpoint", "preemption"),
        *(
            "trainer.accelerator",
            "trainer.devices",
            "trainer.num_nodes",
            "trainer.timeout_s",
            "trainer.log_every_n_steps",
        ),
    }
)
# Where data lie never counts. What else leads to them does only where a run does not say what they are.
PLACES = frozenset({"data.path", "data.source.path", "data.source.name"})
SOURCE = "data.source."
# Not a property of the images: how they are normalized.
NORMALIZATION = frozenset({"data.source.mean", "data.source.std"})
# What a run found, beside what it was told: names of summary.json.
CONTENT, JUDGED, IMAGES = "data.content", "data.judged", "images"

# What both files say: key of the configuration -> name in the summary.
TOLD_TWICE = {"seed": "seed", "eps": "eps", "method": "method", "relaxation.name": "relaxation"}

Setting = dict[str, Any]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    """Part of summary.json; what else stands there is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Tally(_Record):
    """What a stage (prediction or a verifier) came to; judged + failed + skipped are all images.

    Attributes:
        decided: Images that its rate is over: those that it judged, and those that need no judgement.
        judged: Images that it came to a result on.
        failed: Images that it came to no result on.
        skipped: Images that it was not asked about.
    """

    decided: Count
    judged: Count
    failed: Count
    skipped: Count


class Failures(_Record):
    """How often a stage failed in one way."""

    stage: str
    kind: str
    images: Count


class DataFacts(_Record):
    """What the data were: see `certtrain.data.fingerprint.describe_data`."""

    content: str
    judged: str | None


class Summary(_Record):
    """What `collect` reads of summary.json; older versions have no `data`, no tallies and no `failures`."""

    natural_accuracy: Fraction | None
    certified_accuracy: Fraction | None
    certified_accuracy_by: dict[str, Fraction | None] = {}
    images: Count | None = None
    statuses: dict[str, Count] = {}
    prediction: Tally | None = None
    verifiers: dict[str, Tally] = {}
    failures: tuple[Failures, ...] = Field(default=(), strict=False)
    train_seconds: float | None = None
    data: DataFacts | None = None
    versions: dict[str, str | None] = {}


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        directory: Of the run.
        written: When its result was, in nanoseconds.
        seed: Of the run.
        setting: Dotted key -> value of its configuration, without what does not count, and what it found its data
            to be. A key that it does not have is missing, which is not null.
        summary: What stands in summary.json.
        told: Keys that its command line set; None where that is not known.
    """

    directory: Path
    written: int
    seed: int
    setting: Setting
    summary: Summary
    told: frozenset[str] | None = None


@dataclass(frozen=True)
class Found:
    """What was found below some directories.

    Attributes:
        runs: Finished ones.
        damaged: One line for each directory whose record cannot be read, with its path.
        unfinished: Run directories without a result.
    """

    runs: tuple[Run, ...]
    damaged: tuple[str, ...]
    unfinished: tuple[Path, ...]


def find_runs(directories: Sequence[Path]) -> Found:
    """Reads all runs at or below some directories; links are followed, and no directory counts twice."""
    runs: list[Run] = []
    damaged: list[str] = []
    unfinished: list[Path] = []
    seen: set[str] = set()
    for directory in directories:
        for place, files in _walk(directory, seen, damaged):
            if SUMMARY in files:
                try:
                    runs.append(read_run(place))
                except DataError as error:
                    damaged.append(str(error))
            elif CONFIG in files:
                unfinished.append(place)
    return Found(tuple(runs), tuple(damaged), tuple(unfinished))


def read_run(directory: Path) -> Run:
    """Reads one run.

    Raises:
        DataError: If its configuration or its result is missing or damaged; one line that names the file. A result
            that holds its configuration needs no other file.
    """
    record = read_summary(directory / SUMMARY)
    flat = _configuration(directory, record)
    try:
        summary = Summary.model_validate(record)
        written = (directory / SUMMARY).stat().st_mtime_ns
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{directory / SUMMARY} is no summary of a run: {place}: {first['msg']}") from error
    except OSError as error:
        raise DataError(f"{directory / SUMMARY} cannot be read: {error.strerror}") from error
    for key, name in TOLD_TWICE.items():
        if name in record and record[name] != flat[key]:
            raise DataError(
                f"{directory}: {CONFIG} and {SUMMARY} are of different runs: {key} is {flat[key]} in the one, "
                f"{record[name]} in the other"
            )
    return Run(directory, written, flat["seed"], _setting(flat, summary), summary, told(record.get("overrides")))


def _configuration(directory: Path, record: Mapping[str, Any]) -> Setting:
    """Dotted key -> value, from config.yaml, or where there is none from the copy in summary.json.

    Raises:
        DataError: If the file is no complete configuration of a run.
    """
    import yaml  # not above: every job imports this package, few read a configuration with it

    path = directory / CONFIG
    if not path.exists() and isinstance(record.get("config"), Mapping):
        return _checked(record["config"], directory / SUMMARY)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.safe_load(text)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path} cannot be read: {reason}") from error
    if not isinstance(node, dict):
        raise DataError(f"{path} is no configuration of a run: it holds no keys")
    if not text.endswith("\n"):
        raise DataError(f"{path} is not complete: it ends inside a line")
    return _checked(node, path)


def _checked(node: Mapping[str, Any], path: Path) -> Setting:
    flat = dict(flatten(node))
    if missing := [key for key in TOLD_TWICE if key not in flat]:
        raise DataError(f"{path} is not complete: it lacks {missing[0]}")
    if not isinstance(flat["seed"], int):
        raise DataError(f"{path} is no configuration of a run: seed is {flat['seed']!r}")
    return flat


def is_where_from(key: str) -> bool:
    """Whether a key leads to the data, and says nothing that their content does not say."""
    return key.startswith(SOURCE) and key not in NORMALIZATION


def _goes_without_saying(key: str, flat: Mapping[str, Any]) -> bool:
    """Whether a key is an option of a verifier that does not certify, or has the value that conf/relaxation gives it.

    Runs of before there were such keys are then like those that have them.
    """
    group, _, rest = key.partition(".")
    name, _, option = rest.partition(".")
    if group != "verifier" or name not in (flat.get("certify.verifiers") or ()):
        return group == "verifier"
    if option == "name":
        return bool(flat[key] == name)
    usual = _relaxation_options().get(str(flat.get(f"verifier.{name}.name")), {})
    return option in usual and usual[option] == flat[key]


@functools.cache
def _relaxation_options() -> Mapping[str, Setting]:
    """Relaxation -> its options and backend as conf/relaxation has them."""
    import yaml

    files = (config_dir() / "relaxation").glob("*.yaml")
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def _setting(flat: Mapping[str, Any], summary: Summary) -> Setting:
    ignored = CARRIED_OUT | PLACES
    setting = {k: v for k, v in flat.items() if k not in ignored and k.split(".")[0] not in ignored}
    setting = {key: value for key, value in setting.items() if not _goes_without_saying(key, flat)}
    then = {**ALWAYS, **{key: BEFORE[key] for key in ("certify", str(flat.get("method"))) if key in BEFORE}}
    setting = {**dict(flatten(then)), **setting}
    if summary.images is not None:
        setting[IMAGES] = summary.images
    if summary.data is None:
        return setting
    setting = {key: value for key, value in setting.items() if not is_where_from(key)}
    return {**setting, CONTENT: summary.data.content, JUDGED: summary.data.judged}


def _walk(directory: Path, seen: set[str], damaged: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Directories that may be run directories, and the files in them."""

    def unreadable(error: OSError) -> None:
        damaged.append(f"{error.filename} cannot be read: {error.strerror}")

    for place, folders, files in os.walk(directory, onerror=unreadable, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # reached by another link, or given twice
            folders.clear()
            continue
        seen.add(real)
        # Hydra's and W&B's files in a run directory; theirs is a config.yaml, too.
        # And what was certified afterwards: other questions about the same network.
        folders[:] = sorted(name for name in folders if name not in (".hydra", FOLDER))
        if CONFIG in files and SUMMARY not in files and _is_wandb(Path(place)):
            continue
        yield Path(place), files


def _is_wandb(folder: Path) -> bool:
    return folder.name == "files" and folder.parent.name.startswith(("run-", "offline-run-"))
