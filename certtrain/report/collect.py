"""Runs of many directories, grouped by what was set: the same but for the seed is the same setting."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from certtrain.errors import DataError
from certtrain.report.summary import read_summary

# Always shown, in this order.
KEYS = ("relaxation.name", "method")
# Where and how a run was carried out, not what was run.
IGNORED = frozenset(
    {
        *("seed", "logger", "sweep", "resume", "checkpoint", "preemption", "data.path"),
        *(
            "trainer.accelerator",
            "trainer.devices",
            "trainer.num_nodes",
            "trainer.timeout_s",
            "trainer.log_every_n_steps",
        ),
    }
)

Setting = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        directory: Of the run.
        seed: Of the run.
        setting: Dotted key -> value of its configuration, without what does not count.
        summary: What stands in summary.json.
    """

    directory: Path
    seed: int
    setting: Setting
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation over seeds, in percent; None where there are too few values."""

    mean: float | None
    std: float | None

    @classmethod
    def of(cls, fractions: Iterable[float | None]) -> Statistic:
        """Of fractions of 1; those that are None are left out."""
        values = [100 * value for value in fractions if value is not None]
        return cls(mean(values) if values else None, stdev(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        if self.mean is None:
            return "-"
        return f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")


@dataclass(frozen=True)
class Group:
    """Runs of one setting.

    Attributes:
        setting: Values of the keys that tell settings apart; a key that a run does not have is missing.
        seeds: Of the runs, ascending.
        natural: Natural accuracy.
        certified: Certified accuracy by any verifier.
        own: Certified by the verifier that is the training relaxation; None values where it did not certify.
        train_seconds: Mean time of training.
    """

    setting: Setting
    seeds: tuple[int, ...]
    natural: Statistic
    certified: Statistic
    own: Statistic
    train_seconds: float


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        keys: What tells settings apart and is worth a column.
        groups: One per setting.
        repeated: Runs left out because a later one has the same setting and seed.
        unfinished: Run directories without a result.
    """

    keys: tuple[str, ...]
    groups: tuple[Group, ...]
    repeated: int
    unfinished: int


def collect(directories: Sequence[Path]) -> Collection:
    """Groups all finished runs at or below some directories.

    Raises:
        DataError: If there are none, or a record cannot be read.
    """
    found = sorted(
        {path.parent for d in directories for path in d.rglob("config.yaml") if path.parent.name != ".hydra"}
    )
    finished = [directory for directory in found if (directory / "summary.json").is_file()]
    if not finished:
        places = ", ".join(str(directory) for directory in directories)
        raise DataError(f"no finished run (config.yaml with summary.json) in {places}")
    runs, repeated = _latest([_read(directory) for directory in finished])
    differing = _differing(runs)
    together: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        together[tuple(repr(run.setting.get(key)) for key in differing)].append(run)
    keys = _shown(runs, differing)
    groups = [_group(members, keys) for members in together.values()]
    groups.sort(key=lambda group: [_order(group.setting.get(key)) for key in keys])
    return Collection(keys, tuple(groups), repeated, len(found) - len(finished))


def reference(collection: Collection) -> Setting:
    """Of each key beside relaxation and method the value that most groups have: what is varied around."""
    usual = {}
    for key in collection.keys:
        counts = Counter(_hashable(group.setting[key]) for group in collection.groups if key in group.setting)
        if key not in KEYS:
            usual[key] = counts.most_common(1)[0][0]
    return usual


def _read(directory: Path) -> Run:
    try:
        node = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        flat = dict(_flatten(node, ""))
        seed = int(flat["seed"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{directory / 'config.yaml'} is no configuration of a run: {error!r}") from error
    setting = {k: v for k, v in flat.items() if k not in IGNORED and k.split(".")[0] not in IGNORED}
    return Run(directory, seed, setting, read_summary(directory / "summary.json"))


def _flatten(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _latest(runs: Sequence[Run]) -> tuple[list[Run], int]:
    """Of runs with the same setting and seed the last one, and how many were left out."""
    by_time = sorted(runs, key=lambda run: (run.directory / "summary.json").stat().st_mtime_ns)
    kept = {(run.seed, repr(sorted(run.setting.items()))): run for run in by_time}
    return list(kept.values()), len(runs) - len(kept)


def _differing(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(key for run in runs for key in run.setting)
    return [key for key in names if key in KEYS or len({repr(run.setting.get(key)) for run in runs}) > 1]


def _shown(runs: Sequence[Run], differing: Sequence[str]) -> tuple[str, ...]:
    """Keys that relaxation and method do not decide: options that come with a method are no column."""
    values: dict[str, dict[str, set[str]]] = {key: defaultdict(set) for key in differing}
    for run in runs:
        pair = repr([run.setting.get(key) for key in KEYS])
        for key in differing:
            values[key][pair].add(repr(run.setting.get(key)))
    extra = [k for k in differing if k not in KEYS and any(len(found) > 1 for found in values[k].values())]
    return (*KEYS, *extra)


def _group(runs: Sequence[Run], keys: Sequence[str]) -> Group:
    summaries = [run.summary for run in runs]
    name = runs[0].setting.get("relaxation.name")
    return Group(
        {key: runs[0].setting[key] for key in keys if key in runs[0].setting},
        tuple(sorted(run.seed for run in runs)),
        Statistic.of(summary.get("natural_accuracy") for summary in summaries),
        Statistic.of(summary.get("certified_accuracy") for summary in summaries),
        Statistic.of((summary.get("certified_accuracy_by") or {}).get(name) for summary in summaries),
        mean(float(summary.get("train_seconds") or 0.0) for summary in summaries),
    )


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, before words by alphabet; what is missing comes first."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, (int, float)):
        return (1, float(value), "")
    names = ("ibp", "hbox", "zonotope", "crown_ibp", "deeppoly", "grad", "rgs", "pgpe")
    return (2, float(names.index(value)) if value in names else len(names), str(value))


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool, type(None))) else repr(value)
