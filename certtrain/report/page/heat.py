"""Heat maps as tables: a number in every cell, so that they are read without colour as well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from certtrain.report.collect_keys import comparable, is_number, sort_key
from certtrain.report.collected_text import value_text
from certtrain.report.page.entries import Entry
from certtrain.report.page.look import short_key

# Pairs of keys that are looked for first, rows and columns; then every pair of numbers that were varied.
PAIRS = (
    ("relaxation.name", "method"),
    ("relaxation.name", "pgpe.sigma"),
    ("pgpe.population_size", "pgpe.sigma"),
    ("relaxation.name", "pgpe.population_size"),
    ("relaxation.name", "rgs.sigma"),
    ("relaxation.name", "eps"),
    ("relaxation.name", "loss._target_"),
)
# Maps of one set of settings, and values of a key that a map has room for.
MOST, WIDEST = 6, 12


@dataclass(frozen=True)
class Cell:
    """Certified accuracy where two values meet.

    Attributes:
        percent: The best one; None where there is none.
        letter: Of the setting that has it.
        settings: How many there are.
        heat: 0 for the least accuracy of the map, 1 for the greatest.
    """

    percent: float | None
    letter: str = ""
    settings: int = 0
    heat: float = 0.0


@dataclass(frozen=True)
class HeatMap:
    """Certified accuracies over two keys.

    Attributes:
        down: Key of the rows.
        across: Key of the columns.
        rows: Values of `down`, in words, with the cells.
        columns: Values of `across`, in words.
    """

    down: str
    across: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    @property
    def names(self) -> tuple[str, str]:
        """Both keys, short: of the rows, and of the columns."""
        return short_key(self.down), short_key(self.across)


def heat_maps(entries: Sequence[Entry], columns: Sequence[str]) -> list[HeatMap]:
    """Maps of settings that the same verifiers judged: of pairs of keys of which each has several values.

    Args:
        entries: The settings.
        columns: Keys that differ.
    """
    numbers = [key for key in columns if all(is_number(e.group.setting.get(key, 0)) for e in entries)]
    others = [(a, b) for i, a in enumerate(numbers) for b in numbers[i + 1 :] if a.startswith(("pgpe.", "rgs."))]
    pairs = dict.fromkeys((*PAIRS, *(pair for pair in others if pair[::-1] not in PAIRS)))
    maps = [found for down, across in pairs if (found := _map(entries, down, across)) is not None]
    return maps[:MOST]


def _map(entries: Sequence[Entry], down: str, across: str) -> HeatMap | None:
    together: dict[tuple[Hashable, Hashable], list[Entry]] = defaultdict(list)
    values: dict[str, dict[Hashable, Any]] = {down: {}, across: {}}
    for entry in entries:
        setting = entry.group.setting
        if down in setting and across in setting and entry.group.certified.mean is not None:
            for key in (down, across):
                values[key][comparable(setting[key])] = setting[key]
            together[comparable(setting[down]), comparable(setting[across])].append(entry)
    if any(not 2 <= len(found) <= WIDEST for found in values.values()):
        return None
    known = [entry.group.certified.mean or 0.0 for found in together.values() for entry in found]
    low, high = min(known), max(known)

    def cell(found: Sequence[Entry]) -> Cell:
        if not found:
            return Cell(None)
        best = max(found, key=lambda entry: entry.group.certified.mean or 0.0)
        percent = best.group.certified.mean or 0.0
        return Cell(percent, best.look.letter, len(found), (percent - low) / (high - low) if high > low else 0.5)

    ordered = {key: sorted(found.items(), key=lambda item: sort_key(item[1])) for key, found in values.items()}
    rows = tuple(
        (value_text(value), tuple(cell(together.get((at, other), [])) for other, _ in ordered[across]))
        for at, value in ordered[down]
    )
    return HeatMap(down, across, tuple(value_text(value) for _, value in ordered[across]), rows)
