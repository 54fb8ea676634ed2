"""The table of all settings: cells with what they are sorted by, and which columns have values to choose from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from certtrain.report.collect import Collection, Statistic
from certtrain.report.collect_keys import is_number, sort_key
from certtrain.report.collect_read import CONTENT, JUDGED
from certtrain.report.collected_text import union_of, value_text
from certtrain.report.page.entries import Entry
from certtrain.report.page.look import telling
from certtrain.report.page.material import duration

# Values of a column that are offered as a choice.
CHOICES = 30


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: Its heading.
        key: Whether it is something that was set.
        number: Whether it is sorted by number, the greatest first.
        choices: Values to filter by; empty for none.
        note: What its numbers are, for the heading's tooltip and for who reads the table aloud.
        main: Whether it is shown where there is little room.
    """

    name: str
    key: bool = False
    number: bool = False
    choices: tuple[str, ...] = ()
    note: str = ""
    main: bool = False


@dataclass(frozen=True)
class TableCell:
    """A cell: its text, and what it is sorted by (a number or the text itself)."""

    text: str
    value: str


@dataclass(frozen=True)
class Table:
    """Columns, and a row of as many cells for each entry."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, tuple[TableCell, ...]], ...]


def settings_table(collection: Collection, entries: Sequence[Entry]) -> Table:
    """Keys that tell settings apart, accuracies, seeds, the verifiers one by one, costs; then keys that follow."""
    keys = telling(collection.groups, collection.keys.columns)
    follow = [key for key in collection.keys.columns if key not in keys]
    verifiers = list(dict.fromkeys(name for entry in entries for name in entry.group.by))
    several = len({union_of(entry.group) for entry in entries}) > 1
    columns = [
        *(_key_column(key, entries) for key in keys),
        Column("certified %", number=True, note="proved robust by any of the verifiers", main=True),
        Column("natural %", number=True, note="classified correctly as they are", main=True),
        Column("seeds", number=True, main=True),
        *_names_of_unions(entries),
        *(
            Column(f"by {name} %", number=True, note=f"proved robust by {name}, whatever others did")
            for name in verifiers
        ),
        Column("training", number=True, note="wall-clock time, mean over seeds"),
        Column("certification", number=True, note="wall-clock time, mean over seeds"),
        Column("evaluations", number=True, note="of the loss, each on a batch; a gradient counts as one"),
        *(replace(_key_column(key, entries), choices=()) for key in follow),
    ]
    rows = tuple(
        (entry, (*_keys(entry, keys), *_numbers(entry, verifiers, several), *_keys(entry, follow))) for entry in entries
    )
    return Table(tuple(columns), rows)


def _names_of_unions(entries: Sequence[Entry]) -> list[Column]:
    """A column that says over which verifiers a union is, where they are not the same ones everywhere."""
    names = dict.fromkeys(", ".join(union_of(entry.group)) for entry in entries)
    return [Column("any of", main=True, choices=_distinct(names))] if len(names) > 1 else []


def _keys(entry: Entry, keys: Sequence[str]) -> Iterable[TableCell]:
    for key in keys:
        value = entry.group.setting.get(key)
        if key not in entry.group.setting:
            yield TableCell("–", "")
            continue
        text = value_text(value)
        yield TableCell(text[:8] if key in (CONTENT, JUDGED) else text, repr(value) if is_number(value) else text)


def _numbers(entry: Entry, verifiers: Sequence[str], several: bool) -> Iterable[TableCell]:
    group = entry.group
    yield _percent(group.certified)
    yield _percent(group.natural)
    yield TableCell(str(len(group.seeds)), str(len(group.seeds)))
    if several:
        text = ", ".join(union_of(group)) or "–"
        yield TableCell(text, text)
    for name in verifiers:
        yield _percent(group.by[name].certified if name in group.by else None)
    for seconds in (group.train_seconds, entry.certify_seconds):
        yield TableCell(duration(seconds), "" if seconds is None else repr(seconds))
    count = entry.evaluations
    yield TableCell("–" if count is None else f"{count:,.0f}", "" if count is None else repr(count))


def _percent(statistic: Statistic | None) -> TableCell:
    if statistic is None or statistic.mean is None:
        return TableCell("–" if statistic is None else str(statistic).replace("-", "–", 1), "")
    return TableCell(str(statistic), repr(statistic.mean))


def _key_column(key: str, entries: Sequence[Entry]) -> Column:
    values = [entry.group.setting[key] for entry in entries if key in entry.group.setting]
    choices = _distinct(value_text(value) for value in sorted(values, key=sort_key))
    number = bool(values) and all(is_number(value) for value in values)
    return Column(key.removesuffix(".name"), True, number, choices)


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(values))
    return found if 2 <= len(found) <= CHOICES else ()
