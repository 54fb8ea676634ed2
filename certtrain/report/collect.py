"""Runs of many directories, grouped by what was set: the same but for the seed is the same setting."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from certtrain.errors import DataError
from certtrain.report.collect_keys import Keys, compare_settings, identity, sort_key
from certtrain.report.collect_read import (
    CONTENT,
    IMAGES,
    JUDGED,
    Found,
    Run,
    Setting,
    Summary,
    Tally,
    find_runs,
    is_where_from,
)

Counts = tuple[int, int]
# Statuses of images on which something failed that might have known more.
UNDECIDED = ("timeout", "oom", "error")


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation over seeds, in percent; None where there are too few values.

    Attributes:
        mean: Over the runs that have a value.
        std: Likewise; None for less than two.
        decided: Images, in all runs together, of which the answer is known; None where runs do not say.
        images: All images, in all runs together.
    """

    mean: float | None
    std: float | None
    decided: int | None = None
    images: int | None = None

    @classmethod
    def of(cls, fractions: Iterable[float | None], counts: Iterable[Counts | None] = ()) -> Statistic:
        """Of fractions of 1, and of how many images of how many they are; what is None is left out."""
        values = [100 * value for value in fractions if value is not None]
        spread = stdev(values) if len(values) > 1 else None
        known = list(counts)
        there = [count for count in known if count is not None]
        center = mean(values) if values else None
        if not there or len(there) < len(known):
            return cls(center, spread)
        return cls(center, spread, sum(decided for decided, _ in there), sum(images for _, images in there))

    @property
    def complete(self) -> bool:
        """Whether the answer is known for all images, as far as runs say."""
        return self.decided is None or self.images is None or self.decided >= self.images

    def __str__(self) -> str:
        text = "-" if self.mean is None else f"{self.mean:.2f}" + (f" ± {self.std:.2f}" if self.std is not None else "")
        return text if self.complete else f"{text} ({self.decided:,} of {self.images:,})"


@dataclass(frozen=True)
class ByVerifier:
    """What one verifier did in the runs of a setting.

    Attributes:
        certified: What it verified.
        judged: Images that it came to a result on, in all runs together; None where a run does not say.
        failed: Images that it came to no result on, likewise.
        skipped: Images that it was not asked about, likewise.
        reasons: Why it failed -> number of images.
    """

    certified: Statistic
    judged: int | None
    failed: int | None
    skipped: int | None
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class Group:
    """Runs of one setting.

    Attributes:
        setting: Everything that was set; a key that a run does not have is missing.
        seeds: Of the runs, ascending.
        natural: Natural accuracy.
        certified: Certified accuracy by any verifier.
        own: Certified by the verifier that is named like the training relaxation.
        by: Verifier -> what it did.
        train_seconds: Mean time of training; None where no run says.
        versions: Package -> versions that the runs were made with, where they are several.
        directories: Of the runs, by seed.
    """

    setting: Setting
    seeds: tuple[int, ...]
    natural: Statistic
    certified: Statistic
    own: Statistic
    by: Mapping[str, ByVerifier]
    train_seconds: float | None
    versions: Mapping[str, tuple[str, ...]]
    directories: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        keys: What tells settings apart, and what they share.
        groups: One per setting.
        repeated: Runs left out because a later one has the same setting and seed.
        unfinished: Run directories without a result.
        damaged: One line for each directory that was left out because it cannot be read.
        by_name: Name -> runs that do not say what their data are (older versions): told apart by this name alone.
        told: Keys that somebody set in one of the runs; None where that is not known of all.
    """

    keys: Keys
    groups: tuple[Group, ...]
    repeated: int
    unfinished: tuple[Path, ...]
    damaged: tuple[str, ...]
    by_name: Mapping[str, int]
    told: frozenset[str] | None = None


def collect(directories: Sequence[Path]) -> Collection:
    """Groups all finished runs at or below some directories.

    Raises:
        DataError: If there are none, or none can be read.
    """
    found = find_runs(directories)
    if not found.runs:
        raise DataError(_nothing(directories, found))
    unknown = Counter(str(run.setting.get("data.name")) for run in found.runs if run.summary.data is None)
    runs, repeated = _latest(_named(found.runs))
    together: dict[Hashable, list[Run]] = defaultdict(list)
    for run in runs:
        together[identity(run.setting)].append(run)
    keys = compare_settings([members[0].setting for members in together.values()])
    groups = [_group(members) for members in together.values()]
    groups.sort(key=lambda group: [sort_key(group.setting.get(key)) for key in keys.columns])
    named = [run.told for run in runs]
    told = None if None in named else frozenset(key for one in named for key in one or ())
    return Collection(keys, tuple(groups), repeated, found.unfinished, found.damaged, dict(unknown), told)


def _nothing(directories: Sequence[Path], found: Found) -> str:
    places = ", ".join(str(directory) for directory in directories)
    if not found.damaged:
        return f"no finished run (config.yaml with summary.json) in {places}"
    rest = f", and {len(found.damaged) - 1} others cannot be read, either" if len(found.damaged) > 1 else ""
    return f"no finished run that can be read in {places}: {found.damaged[0]}{rest}"


def _named(runs: Sequence[Run]) -> list[Run]:
    """Runs that do not say what their data are get those of the runs with data of the same name, if these agree."""
    known: dict[Hashable, set[tuple[str, str | None]]] = defaultdict(set)
    for run in runs:
        if run.summary.data is not None:
            known[_name(run)].add((run.setting[CONTENT], run.setting[JUDGED]))
    return [run if run.summary.data is not None else _given(run, known[_name(run)]) for run in runs]


def _given(run: Run, candidates: Set[tuple[str, str | None]]) -> Run:
    if len(candidates) != 1:
        return run
    content, judged = next(iter(candidates))
    rest = {key: value for key, value in run.setting.items() if not is_where_from(key)}
    return replace(run, setting={**rest, CONTENT: content, JUDGED: judged})


def _name(run: Run) -> Hashable:
    return identity({key: run.setting.get(key) for key in ("data.name", IMAGES, "certify.enabled", "certify.limit")})


def _latest(runs: Sequence[Run]) -> tuple[list[Run], int]:
    """Of runs with the same setting and seed the last one, and how many were left out."""
    by_time = sorted(runs, key=lambda run: run.written)
    kept = {(run.seed, identity(run.setting)): run for run in by_time}
    return list(kept.values()), len(runs) - len(kept)


def _group(runs: Sequence[Run]) -> Group:
    summaries = [run.summary for run in runs]
    names = dict.fromkeys(name for s in summaries for name in (*s.certified_accuracy_by, *s.verifiers))
    by = {name: _by_verifier(summaries, name) for name in names}
    own = by.get(str(runs[0].setting.get("relaxation.name")))
    seconds = [s.train_seconds for s in summaries if s.train_seconds is not None]
    return Group(
        runs[0].setting,
        tuple(sorted(run.seed for run in runs)),
        _natural(summaries),
        _union(summaries),
        Statistic.of(()) if own is None else own.certified,
        by,
        mean(seconds) if seconds else None,
        _versions(summaries),
        tuple(run.directory for run in sorted(runs, key=lambda run: run.seed)),
    )


def _natural(summaries: Sequence[Summary]) -> Statistic:
    fractions = [s.natural_accuracy for s in summaries]
    return Statistic.of(fractions, (_decided(s, s.natural_accuracy, s.prediction) for s in summaries))


def _union(summaries: Sequence[Summary]) -> Statistic:
    """Certified by any verifier: of all images, though one on which something failed may be certifiable."""

    def decided(summary: Summary) -> Counts | None:
        if summary.images is None:
            return None
        undecided = sum(summary.statuses.get(status, 0) for status in UNDECIDED)
        return summary.images - undecided, summary.images

    return Statistic.of([s.certified_accuracy for s in summaries], map(decided, summaries))


def _by_verifier(summaries: Sequence[Summary], name: str) -> ByVerifier:
    fractions = [s.certified_accuracy_by.get(name) for s in summaries]
    tallies = [s.verifiers.get(name) for s in summaries]
    counts = [_decided(s, f, t) for s, f, t in zip(summaries, fractions, tallies, strict=True)]
    known = [tally for tally in tallies if tally is not None]
    said = len(known) == len(tallies)
    reasons: Counter[str] = Counter()
    for row in (row for s in summaries for row in s.failures if row.stage == name):
        reasons[row.kind] += row.images
    return ByVerifier(
        Statistic.of(fractions, counts),
        sum(tally.judged for tally in known) if said else None,
        sum(tally.failed for tally in known) if said else None,
        sum(tally.skipped for tally in known) if said else None,
        dict(reasons),
    )


def _decided(summary: Summary, fraction: float | None, tally: Tally | None) -> Counts | None:
    """Of how many images of how many a fraction is; None where the run does not say."""
    if summary.images is None:
        return None
    if fraction is None:
        return 0, summary.images
    # Where nothing is counted, by an older version, the fraction is of all images.
    return summary.images if tally is None else tally.decided, summary.images


def _versions(summaries: Sequence[Summary]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = defaultdict(set)
    for summary in summaries:
        for package, version in summary.versions.items():
            found[package].add(str(version))
    return {package: tuple(sorted(versions)) for package, versions in found.items() if len(versions) > 1}
