"""One page of many runs: what was trained, with what, how good it is, then details."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from certtrain import __version__
from certtrain.report.collect import Collection
from certtrain.report.collected_text import notes, value_text
from certtrain.report.page import comparisons, radii, training
from certtrain.report.page.entries import MOST, Arena, Entry, arenas_of, drawn, entries_of
from certtrain.report.page.facts import chosen, provenance
from certtrain.report.page.gallery import Images
from certtrain.report.page.head import head
from certtrain.report.page.jobs import missing_runs
from certtrain.report.page.material import duration, read_material
from certtrain.report.page.render import write_page
from certtrain.report.page.search import searches
from certtrain.report.page.table import Column, settings_table


@dataclass(frozen=True)
class Shown:
    """How much a page shows.

    Attributes:
        title: Above it; None makes one.
        curves: Settings that are drawn as lines.
        images: Of each gallery.
    """

    title: str | None = None
    curves: int = 8
    images: int = 12


def write_study(
    collection: Collection,
    directories: Sequence[Path],
    path: Path,
    shown: Shown,
    images_of: Callable[[Path], Images | None],
) -> Path:
    """Writes the page.

    Args:
        collection: The runs.
        directories: Where they were looked for; sweeps there say what became of their jobs.
        path: The page; its folder exists.
        shown: How much.
        images_of: Run directory -> its test images by number; None where they are not at hand.
    """
    entries = entries_of(collection, read_material)
    arenas = arenas_of(entries)
    missing = missing_runs(directories, collection.unfinished)
    searched, unread = searches(directories)
    context: dict[str, Any] = {
        **head(collection, entries, arenas, len(missing), shown.title),
        "table": _table(collection, entries, arenas),
        **_compared(collection, entries, arenas[:MOST]),
        **_drawn(entries, shown.curves),
        "galleries": list(comparisons.galleries(arenas, shown.images, images_of)),
        "missing": missing,
        "searches": searched,
        "notes": [*notes(replace(collection, unfinished=())), *_trouble(entries), *unread],
        "entries": entries,
        "links": {str(run.directory): _link(run.directory, path) for entry in entries for run in entry.runs},
        "facts_of": {entry.look.letter: list(provenance(entry.runs)) for entry in entries},
        "shared_facts": list(_shared_facts(collection, entries)),
        "shared": [(key, value_text(value)) for key, value in collection.keys.shared.items()],
        "command": "python -m certtrain report " + " ".join(map(str, directories)),
        "version": __version__,
    }
    return write_page("study.html", {**context, "sections": _sections(context)}, path)


def _compared(collection: Collection, entries: Sequence[Entry], arenas: Sequence[Arena]) -> dict[str, Any]:
    """Accuracies against each other, over pairs of keys, by stages, and against what they cost."""
    train, certify = (duration(_total(entries, f"{name}_seconds")) for name in ("train", "certify"))
    return {
        "fronts": comparisons.fronts(arenas),
        "charted": comparisons.charted(arenas),
        "others": "; ".join(comparisons.without_natural(arenas)),
        "maps": comparisons.maps(arenas, collection.keys.columns),
        "falls": list(comparisons.falls(entries)),
        "costs": comparisons.costs(arenas),
        "cost_note": f"All runs together: {train} of training, {certify} of certification.",
    }


def _drawn(entries: Sequence[Entry], most: int) -> dict[str, Any]:
    """Lines of the settings that charts have room for: over the training, and over eps."""
    lines = drawn(entries, most)
    first, more = training.study_charts(lines)
    over_eps, with_radii = radii.study_charts(lines)
    return {
        "drawn": lines,
        "drawn_note": _drawn_note(lines, entries),
        "training": first or more,
        "more_training": more if first else [],
        "radii": over_eps,
        "with_radii": with_radii,
    }


def _trouble(entries: Sequence[Entry]) -> list[str]:
    """Files of runs that cannot be read."""
    return [line for entry in entries for run in entry.runs for line in run.trouble]


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Anchor, name, and whether it is there."""
    found = {
        "search": ("Search", "searches"),
        "pareto": ("Natural and certified", "fronts"),
        "training": ("Training", "training"),
        "maps": ("Heat maps", "maps"),
        "radii": ("Over eps", "radii"),
        "stages": ("Stages", "falls"),
        "costs": ("Costs", "costs"),
        "images": ("Images", "galleries"),
    }
    rest = [("missing", "What is missing", True), ("runs", "Runs", True)]
    return [*((anchor, name, bool(context[key])) for anchor, (name, key) in found.items()), *rest]


def _table(collection: Collection, entries: Sequence[Entry], arenas: Sequence[Arena]) -> dict[str, Any]:
    """The table with a column of letters before the others, and places to sort by."""
    found = settings_table(collection, entries)
    lead = {**vars(Column("setting", key=True, main=True)), "place": 0}
    columns = [lead, *({**vars(column), "place": i} for i, column in enumerate(found.columns, 1))]
    verifiers = {arena.verifiers for arena in arenas}
    shared = {"several": len(verifiers) > 1, "union": next(iter(verifiers), ())}
    return {"columns": columns, "rows": found.rows, **shared}


def _shared_facts(collection: Collection, entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    shared = collection.keys.shared
    for name, group in (("data", "data"), ("network", "model"), ("loss", "loss"), ("optimizer", "optimizer")):
        words = str(shared["data.name"]) if group == "data" and "data.name" in shared else chosen(shared, group)
        if words:
            yield name, words
    yield from provenance([run for entry in entries for run in entry.runs])


def _drawn_note(lines: Sequence[Entry], entries: Sequence[Entry]) -> str:
    if len(lines) == len(entries):
        return ""
    return (
        f"{len(lines)} of {len(entries)} settings are drawn: the most certified of each relaxation and method, then "
        "the most certified others."
    )


def _total(entries: Sequence[Entry], name: str) -> float | None:
    known = [run.record.get(name) for entry in entries for run in entry.runs]
    numbers = [value for value in known if isinstance(value, (int, float))]
    return sum(numbers) if numbers else None


def _link(directory: Path, page: Path) -> str:
    """A run's own page, relative to this one, so that both can be moved together; its directory where it has none."""
    target = directory / "report.html"
    return os.path.relpath(target if target.is_file() else directory, page.parent)
