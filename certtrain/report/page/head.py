"""The first words of a study's page: what was trained, with what, and how good the best of it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from certtrain.report.collect import Collection
from certtrain.report.collect_keys import KEYS
from certtrain.report.collected_text import value_text
from certtrain.report.page.entries import MOST, Arena, Entry


@dataclass(frozen=True)
class Tile:
    """A number under its name, and what it is."""

    name: str
    value: str
    note: str


def head(
    collection: Collection, entries: Sequence[Entry], arenas: Sequence[Arena], missing: int, title: str | None
) -> dict[str, Any]:
    """Title, what was trained in words, and the most important numbers, as the template takes them.

    Args:
        collection: The runs.
        entries: Their settings.
        arenas: The same by what they may be compared with.
        missing: Runs without a result.
        title: None makes one.
    """
    names = list(dict.fromkeys(arena.data for arena in arenas))
    radii_of = list(dict.fromkeys(value_text(arena.eps) for arena in arenas))
    runs = sum(len(entry.runs) for entry in entries)
    relaxations, methods = (list(dict.fromkeys(value_text(e.group.setting.get(key)) for e in entries)) for key in KEYS)
    title = title or f"Certified training on {_listed(names)} at eps {_listed(radii_of)}"
    lead = [
        f"{_many(len(entries), 'setting')} in {_many(runs, 'run')}: trained with {_listed(relaxations)}, "
        f"gradients by {_listed(methods)}.",
        *(_verdict(arena) for arena in arenas[:MOST]),
    ]
    if len(arenas) > 1:
        lead.append("Different data, radii, images or verifiers are never compared: each has charts of its own.")
    if len(arenas) > MOST:
        lead.append(f"{len(arenas) - MOST} more sets of comparable settings are in the table only.")
    return {"title": title, "lead": lead, "tiles": list(_tiles(arenas, runs, missing, collection))}


def _verdict(arena: Arena) -> str:
    best = arena.best
    if best is None:
        return f"Nothing was certified on {arena.where}."
    group = best.group
    return (
        f"Most certified on {arena.where}: {best.look.letter} ({best.look.name}), {group.certified} % {arena.by}, with "
        f"{group.natural} % natural accuracy."
    )


def _tiles(arenas: Sequence[Arena], runs: int, missing: int, collection: Collection) -> Iterator[Tile]:
    for arena in arenas[:2]:
        if (best := arena.best) is not None:
            trained = ", ".join(value_text(best.group.setting.get(key)) for key in KEYS)
            note = f"{best.look.letter}, trained with {trained}; {arena.by}; {arena.where}"
            yield Tile("most certified", f"{best.group.certified.mean:.2f} %", note)
        known = [entry for entry in arena.entries if entry.group.natural.mean is not None]
        if known:
            first = max(known, key=lambda entry: entry.group.natural.mean or 0.0)
            note = f"{first.look.letter} ({first.look.name}); {arena.where}"
            yield Tile("highest natural", f"{first.group.natural.mean:.2f} %", note)
    left_out = collection.repeated + len(collection.damaged)
    yield Tile("runs with a result", f"{runs}", f"{missing} without, {left_out} left out")


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
