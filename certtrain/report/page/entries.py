"""The settings of a study as its page shows them, and which of them may be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from certtrain.report.collect import Collection, Group, Statistic
from certtrain.report.collect_keys import KEYS, identity
from certtrain.report.collect_read import CONTENT, IMAGES, JUDGED
from certtrain.report.collected_text import union_of, value_text
from certtrain.report.page.look import Look, look, setting_name, telling
from certtrain.report.page.material import Material

# What certified accuracies depend on beside the network: numbers under different ones are no competitors.
JUDGEMENT = ("data.name", CONTENT, JUDGED, IMAGES, "eps", "certify.verifiers", "certify.cascade", "certify.arithmetic")
# Sets of comparable settings that get charts of their own.
MOST = 6


@dataclass(frozen=True)
class Entry:
    """One setting.

    Attributes:
        look: How it is told from others.
        group: Its numbers over seeds.
        runs: Its runs, by seed.
    """

    look: Look
    group: Group
    runs: tuple[Material, ...]

    def mean(self, of: Callable[[Material], float | int | None]) -> float | None:
        """Mean over the runs that have a number."""
        known = [float(value) for run in self.runs if isinstance(value := of(run), (int, float))]
        return sum(known) / len(known) if known else None

    @property
    def certify_seconds(self) -> float | None:
        """Mean over seeds."""
        return self.mean(lambda run: run.record.get("certify_seconds"))

    @property
    def evaluations(self) -> float | None:
        """Mean over seeds."""
        return self.mean(lambda run: run.evaluations)


@dataclass(frozen=True)
class Arena:
    """Settings that the same verifiers judged on the same images at the same radius.

    Attributes:
        data: Name of the data set.
        eps: Radius; None where a run does not say.
        images: Test images; None likewise.
        verifiers: Whose union certified accuracies are.
        entries: At least one.
    """

    data: str
    eps: float | None
    images: int | None
    verifiers: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def where(self) -> str:
        """Data, radius and images, in words."""
        known = [self.data, f"eps {value_text(self.eps)}" if self.eps is not None else ""]
        return ", ".join(filter(None, [*known, f"{self.images:,} test images" if self.images else ""]))

    @property
    def by(self) -> str:
        """Who certified, in words."""
        return f"certified by any of {', '.join(self.verifiers)}" if self.verifiers else "not certified"

    @property
    def best(self) -> Entry | None:
        """The setting that is certified most; None where nothing was certified."""
        known = [entry for entry in self.entries if entry.group.certified.mean is not None]
        return max(known, key=lambda entry: entry.group.certified.mean or 0.0, default=None)


def entries_of(collection: Collection, read: Callable[[Path], Material]) -> list[Entry]:
    """A look for each setting, and the files of its runs."""
    keys = telling(collection.groups, collection.keys.columns)
    return [
        Entry(look(i, setting_name(group, keys)), group, tuple(map(read, group.directories)))
        for i, group in enumerate(collection.groups)
    ]


def arenas_of(entries: Sequence[Entry]) -> list[Arena]:
    """Settings by what they may be compared with; the largest set first."""
    together: dict[Hashable, list[Entry]] = defaultdict(list)
    for entry in entries:
        setting = entry.group.setting
        judged = {key: setting[key] for key in JUDGEMENT if key in setting}
        together[identity(judged), union_of(entry.group)].append(entry)
    found = [_arena(members) for members in together.values()]
    return sorted(found, key=lambda arena: -len(arena.entries))


def _arena(members: Sequence[Entry]) -> Arena:
    setting = members[0].group.setting
    eps, images = setting.get("eps"), setting.get(IMAGES)
    return Arena(
        str(setting.get("data.name", "data")),
        float(eps) if isinstance(eps, (int, float)) else None,
        images if isinstance(images, int) else None,
        union_of(members[0].group),
        tuple(members),
    )


def drawn(entries: Sequence[Entry], most: int) -> list[Entry]:
    """The settings that charts have room for: the best of each relaxation and method, then the best others."""
    ordered = sorted(entries, key=lambda entry: -_certified(entry.group.certified))
    first: dict[tuple[str, ...], Entry] = {}
    for entry in ordered:
        first.setdefault(tuple(value_text(entry.group.setting.get(key)) for key in KEYS), entry)
    chosen = list(_first([*first.values(), *ordered], most))
    return [entry for entry in entries if entry in chosen]


def _first(entries: Sequence[Entry], most: int) -> Iterator[Entry]:
    seen: set[str] = set()
    for entry in entries:
        if entry.look.letter not in seen and len(seen) < most:
            seen.add(entry.look.letter)
            yield entry


def _certified(statistic: Statistic) -> float:
    return -1.0 if statistic.mean is None else statistic.mean
