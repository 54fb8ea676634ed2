"""Which keys tell settings apart, and which all settings share."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from certtrain.report.collect_read import CONTENT, IMAGES, JUDGED, Setting
from certtrain.report.told import CHOICES

# Always columns, in this order: no number is shown without them.
KEYS = ("relaxation.name", "method")
# Columns that come next, or whose names begin so.
FIRST = ("data.name", CONTENT, IMAGES, JUDGED, "eps", "model.")
WORDS = ("ibp", "hbox", "zonotope", "crown_ibp", "deeppoly", "grad", "rgs", "pgpe")
MISSING = ("missing",)


@dataclass(frozen=True)
class Companions:
    """Keys that come with some values of a column, and have one value wherever they are.

    Attributes:
        key: The column.
        values: With which of its values the others come.
        setting: The others.
    """

    key: str
    values: tuple[Any, ...]
    setting: Setting


@dataclass(frozen=True)
class Keys:
    """All keys of some settings, each in exactly one place.

    Attributes:
        columns: Keys that differ, and `KEYS`.
        companions: Keys that differ only in that some settings do not have them, as columns tell.
        shared: What all settings have in common.
    """

    columns: tuple[str, ...]
    companions: tuple[Companions, ...]
    shared: Setting


def comparable(value: Any) -> Hashable:
    """Equal for values that mean the same: 1 and 1.0 do, true and 1 do not."""
    if isinstance(value, Mapping):
        return ("mapping", *sorted((str(key), comparable(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return ("list", *map(comparable, value))
    if is_number(value):
        return ("number", "nan" if math.isnan(value) else value)
    return (type(value).__name__, str(value))


def is_number(value: Any) -> bool:
    """Whether a value has a place on an axis."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def identity(setting: Setting) -> Hashable:
    """Equal for equal settings."""
    return frozenset((key, comparable(value)) for key, value in setting.items())


def sort_key(value: Any) -> tuple[Any, ...]:
    """Nothing first, then numbers by size, lists by what is in them, the words of this field in their order, words."""
    if value is None:
        return (0,)
    if is_number(value):
        return (1, -math.inf if math.isnan(value) else value)
    if isinstance(value, (list, tuple)):
        return (2, *map(sort_key, value))
    text = str(value)
    return (3, WORDS.index(text) if text in WORDS else len(WORDS), text)


def compare_settings(settings: Sequence[Setting]) -> Keys:
    """Tells what differs from what is shared."""
    names = sorted(dict.fromkeys(key for setting in settings for key in setting), key=_rank)
    values = {key: [_of(setting, key) for setting in settings] for key in names}
    distinct = {key: set(found) - {MISSING} for key, found in values.items()}
    columns = [key for key in names if key in KEYS or len(distinct[key]) > 1]
    columns = [*(key for key in KEYS if key not in columns), *columns]
    alone, shared = [], {}
    together: dict[tuple[str, tuple[Hashable, ...]], Companions] = {}
    for key in names:
        if key in columns:
            continue
        first = next(setting[key] for setting in settings if key in setting)
        if MISSING not in values[key]:
            shared[key] = first
            continue
        owner = _owner(key, columns, values)
        if owner is None:
            alone.append(key)
            continue
        with_it = {_of(s, owner): s[owner] for s in settings if key in s and owner in s}
        place = (owner, tuple(with_it))
        together.setdefault(place, Companions(owner, tuple(with_it.values()), {})).setting[key] = first
    return Keys(tuple(sorted([*columns, *alone], key=_rank)), tuple(together.values()), shared)


def _of(setting: Setting, key: str) -> Hashable:
    return comparable(setting[key]) if key in setting else MISSING


def _rank(key: str) -> tuple[int, int]:
    """Sorting by this keeps the order of keys of which nothing is said."""
    if key in KEYS:
        return (0, KEYS.index(key))
    places = [i for i, name in enumerate(FIRST) if key == name or (name.endswith(".") and key.startswith(name))]
    return (1, places[0]) if places else (2, 0)


def _owner(key: str, columns: Sequence[str], values: Mapping[str, Sequence[Hashable]]) -> str | None:
    """The column whose value decides whether a setting has a key; the nearest one if there are several."""
    fitting = []
    for column in columns:
        if column not in values or not (column in KEYS or column.rsplit(".", 1)[-1] in CHOICES):
            continue
        with_it = {value for value, there in zip(values[column], values[key], strict=True) if there != MISSING}
        without = {value for value, there in zip(values[column], values[key], strict=True) if there == MISSING}
        if not with_it & without and MISSING not in with_it:
            named = with_it == {comparable(key.split(".")[0])}  # as method=pgpe is by pgpe.sigma
            fitting.append((named, _common(key, column), -columns.index(column), column))
    return max(fitting)[-1] if fitting else None


def _common(one: str, other: str) -> int:
    """How many parts two keys begin with in common."""
    count = 0
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if a != b:
            break
        count += 1
    return count
