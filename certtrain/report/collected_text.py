"""What is said about collected runs: their settings, what these share, and what the numbers do not show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from certtrain.report.collect import ByVerifier, Collection, Group
from certtrain.report.collect_keys import KEYS, is_number
from certtrain.report.collect_read import IMAGES, Setting
from certtrain.report.told import is_worth_saying

# Unfinished directories that are named.
NAMED = 3


def value_text(value: Any) -> str:
    """A value as it is given on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if is_number(value):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(value_text, value))}]"
    return str(value)


def setting_cells(setting: Setting, columns: Sequence[str]) -> list[str]:
    """The values of some keys; a dash for one that the setting does not have."""
    return [value_text(setting[key]) if key in setting else "-" for key in columns]


def headline(collection: Collection) -> str:
    """On which data and for which radius, as far as it is the same for all."""
    shared = collection.keys.shared
    known = [str(shared["data.name"])] if "data.name" in shared else []
    known += [f"eps {value_text(shared['eps'])}"] if "eps" in shared else []
    known += [f"{shared[IMAGES]:,} test images"] if shared.get(IMAGES) else []
    return ", ".join([*known, "mean ± standard deviation over seeds"])


def shared_lines(collection: Collection) -> list[str]:
    """What is the same for all settings, and what comes with a value of a column; without what nobody set."""
    lines = []
    for key, name in _by_group(_said(collection, collection.keys.shared)).items():
        lines.append(f"  {key}: {_assignments(name)}" if key else f"  {_assignments(name)}")
    if lines:
        lines.insert(0, "the same for all, as far as somebody set it:" if collection.told else "the same for all:")
    for companions in collection.keys.companions:
        if said := _said(collection, companions.setting):
            values = ", ".join(map(value_text, companions.values))
            lines.append(f"with {companions.key} {values}: {_assignments(said)}")
    return lines


def _said(collection: Collection, setting: Setting) -> Setting:
    return {key: value for key, value in setting.items() if is_worth_saying(key, value, collection.told)}


def union_of(group: Group) -> tuple[str, ...]:
    """The verifiers that a setting's certified accuracy is the union of, in the order in which they were asked.

    Where none has a rate of its own, since each was asked only what others had left, those that were configured.
    """
    configured = group.setting.get("certify.verifiers")
    listed = tuple(map(str, configured)) if isinstance(configured, (list, tuple)) else ()
    return tuple(group.by) or listed


def unions(collection: Collection) -> list[tuple[str, ...]]:
    """The different ones among them; certified accuracies can be compared within one only."""
    certified = (union_of(group) for group in collection.groups if group.certified.mean is not None)
    return list(dict.fromkeys(certified))


def notes(collection: Collection) -> list[str]:
    """What the rows do not show."""
    return [*_about_numbers(collection), *_about_runs(collection)]


def _about_numbers(collection: Collection) -> Iterator[str]:
    statistics = [number for g in collection.groups for number in (g.natural, g.certified, g.own)]
    if not all(number.complete for number in statistics):
        yield (
            "(n of m): of m images, all seeds together, n are decided; on the others something failed or no time was "
            "left: rates leave them out, the union counts them as not certified"
        )
    if len(found := unions(collection)) > 1:
        named = "; ".join(", ".join(union) or "not named" for union in found)
        yield f"certified by different verifiers, so unions are not comparable between them: {named}"
    for group in collection.groups:
        gaps = [_accounted(name, by) for name, by in group.by.items() if not by.certified.complete]
        if gaps:
            yield f"{_described(collection, group)}: {'; '.join(gaps)}"
        for package, versions in group.versions.items():
            yield f"{_described(collection, group)}: made with several versions of {package}: {', '.join(versions)}"


def _accounted(name: str, by: ByVerifier) -> str:
    if by.judged is None or by.failed is None or by.skipped is None:
        return f"{name} decided {by.certified.decided:,} of {by.certified.images:,} images"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in by.reasons.items())
    failed = f"{by.failed:,}" + (f" ({reasons})" if reasons else "")
    return f"{name} judged {by.judged:,} images, failed on {failed}, skipped {by.skipped:,}"


def _about_runs(collection: Collection) -> Iterator[str]:
    if collection.repeated:
        yield f"{_runs(collection.repeated)} left out: a later one has the same setting and seed"
    for name, count in collection.by_name.items():
        yield f"{_runs(count)} of an older version: what the data are is not recorded, only their name, {name}"
    if collection.unfinished:
        named = ", ".join(map(str, collection.unfinished[:NAMED]))
        more = len(collection.unfinished) - NAMED
        yield f"without a result: {named}" + (f", and {more} more" if more > 0 else "")
    for line in collection.damaged:
        yield f"left out: {line}"


def _runs(count: int) -> str:
    return f"{count} run" + ("s" if count > 1 else "")


def _described(collection: Collection, group: Group) -> str:
    return ", ".join(
        value_text(group.setting[key]) if key in KEYS else f"{key}={value_text(group.setting[key])}"
        for key in collection.keys.columns
        if key in group.setting
    )


def _by_group(setting: Setting) -> dict[str, Setting]:
    """Keys by what stands before their first dot; those without one come first, under an empty name."""
    found: dict[str, Setting] = defaultdict(dict)
    found[""] = {}
    for key, value in setting.items():
        first, _, rest = key.partition(".")
        found[first if rest else ""][rest or key] = value
    return {name: members for name, members in found.items() if members}


def _assignments(setting: Setting) -> str:
    return ", ".join(f"{key}={value_text(value)}" for key, value in setting.items())
