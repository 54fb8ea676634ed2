"""One page of many runs: what was trained, with what, how good it is, then details."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from certtrain import __version__
from certtrain.certify import Verdict, read_ledger
from certtrain.errors import DataError
from certtrain.report.collect import Collection
from certtrain.report.collect_keys import KEYS
from certtrain.report.collected_text import notes, value_text
from certtrain.report.page import charts, radii, training
from certtrain.report.page.charts import Spot
from certtrain.report.page.entries import Arena, Entry, arenas_of, drawn, entries_of
from certtrain.report.page.facts import chosen, provenance
from certtrain.report.page.gallery import Images, Picture, gallery
from certtrain.report.page.heat import HeatMap, heat_maps
from certtrain.report.page.jobs import missing_runs
from certtrain.report.page.material import LEDGER, Material, duration, read_material
from certtrain.report.page.published import Published, published_for
from certtrain.report.page.render import write_page
from certtrain.report.page.run import Tile
from certtrain.report.page.table import Column, settings_table
from certtrain.report.page.waterfall import Part, waterfall

# Sets of comparable settings that get charts of their own; settings that get a waterfall; galleries.
ARENAS, FALLS, GALLERIES = 6, 24, 3


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


@dataclass(frozen=True)
class Front:
    """A chart of natural and certified accuracy."""

    where: str
    by: str
    svg: Markup
    published: tuple[Published, ...]


@dataclass(frozen=True)
class Maps:
    """Heat maps of comparable settings."""

    where: str
    by: str
    maps: tuple[HeatMap, ...]


@dataclass(frozen=True)
class Gallery:
    """Images of one run."""

    heading: str
    by: str
    pictures: tuple[Picture, ...]


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
    lines = drawn(entries, shown.curves)
    spotted = [entry for arena in arenas[:ARENAS] for entry in arena.entries if _spot(entry) is not None]
    missing = missing_runs(directories, collection.unfinished)
    first, more = training.study_charts(lines)
    over_eps, with_radii = radii.study_charts(lines)
    context: dict[str, Any] = {
        **_head(collection, entries, arenas, len(missing), shown),
        "table": _table(collection, entries),
        "fronts": [front for arena in arenas[:ARENAS] if (front := _front(arena)) is not None],
        "charted": spotted,
        "others": "; ".join(_without_natural(arenas)),
        "training": first or more,
        "more_training": more if first else [],
        "drawn": lines,
        "drawn_note": _drawn_note(lines, entries),
        "maps": [maps for arena in arenas[:ARENAS] if (maps := _maps(arena, collection.keys.columns)) is not None],
        "radii": over_eps,
        "with_radii": with_radii,
        "falls": list(_falls(drawn(entries, FALLS))),
        "costs": [chart for arena in arenas[:ARENAS] for chart in _costs(arena)],
        "cost_note": f"All runs together: {duration(_total(entries, 'train_seconds'))} of training, "
        f"{duration(_total(entries, 'certify_seconds'))} of certification.",
        "galleries": list(_galleries(arenas, shown.images, images_of)),
        "missing": missing,
        "notes": [
            *notes(replace(collection, unfinished=())),
            *(line for entry in entries for run in entry.runs for line in run.trouble),
        ],
        "entries": entries,
        "links": {str(run.directory): _link(run.directory, path) for entry in entries for run in entry.runs},
        "facts_of": {entry.look.letter: list(provenance(entry.runs)) for entry in entries},
        "shared_facts": list(_shared_facts(collection, entries)),
        "shared": [(key, value_text(value)) for key, value in collection.keys.shared.items()],
        "command": "python -m certtrain report " + " ".join(map(str, directories)),
        "version": __version__,
    }
    return write_page("study.html", {**context, "sections": _sections(context)}, path)


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Anchor, name, and whether it is there."""
    found = {
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


def _head(
    collection: Collection, entries: Sequence[Entry], arenas: Sequence[Arena], missing: int, shown: Shown
) -> dict[str, Any]:
    """Title, what was trained in words, and the most important numbers."""
    names = list(dict.fromkeys(arena.data for arena in arenas))
    radii_of = list(dict.fromkeys(value_text(arena.eps) for arena in arenas))
    runs = sum(len(entry.runs) for entry in entries)
    relaxations, methods = (list(dict.fromkeys(value_text(e.group.setting.get(key)) for e in entries)) for key in KEYS)
    title = shown.title or f"Certified training on {_listed(names)} at eps {_listed(radii_of)}"
    lead = [
        f"{_many(len(entries), 'setting')} in {_many(runs, 'run')}: trained with {_listed(relaxations)}, "
        f"gradients by {_listed(methods)}.",
        *(_verdict(arena) for arena in arenas[:ARENAS]),
    ]
    if len(arenas) > 1:
        lead.append("Different data, radii, images or verifiers are never compared: each has charts of its own.")
    if len(arenas) > ARENAS:
        lead.append(f"{len(arenas) - ARENAS} more sets of comparable settings are in the table only.")
    return {"title": title, "lead": lead, "tiles": list(_tiles(arenas, entries, runs, missing, collection))}


def _verdict(arena: Arena) -> str:
    best = arena.best
    if best is None:
        return f"Nothing was certified on {arena.where}."
    group = best.group
    return (
        f"Most certified on {arena.where}: {best.look.letter} ({best.look.name}), {group.certified} % {arena.by}, with "
        f"{group.natural} % natural accuracy."
    )


def _tiles(
    arenas: Sequence[Arena], entries: Sequence[Entry], runs: int, missing: int, collection: Collection
) -> Iterator[Tile]:
    for arena in arenas[:2]:
        if (best := arena.best) is not None:
            trained = ", ".join(value_text(best.group.setting.get(key)) for key in KEYS)
            note = f"{best.look.letter}, trained with {trained}; {arena.by}; {arena.where}"
            yield Tile("most certified", f"{best.group.certified.mean:.2f} %", note)
    known = [entry for entry in entries if entry.group.natural.mean is not None]
    if known:
        best = max(known, key=lambda entry: entry.group.natural.mean or 0.0)
        yield Tile("highest natural", f"{best.group.natural.mean:.2f} %", f"{best.look.letter} ({best.look.name})")
    left_out = collection.repeated + len(collection.damaged)
    yield Tile("runs with a result", f"{runs}", f"{missing} without, {left_out} left out")


def _table(collection: Collection, entries: Sequence[Entry]) -> dict[str, Any]:
    """The table with a column of letters before the others, and places to sort by."""
    found = settings_table(collection, entries)
    lead = {**vars(Column("setting", key=True, main=True)), "place": 0}
    columns = [lead, *({**vars(column), "place": i} for i, column in enumerate(found.columns, 1))]
    verifiers = {arena.verifiers for arena in arenas_of(entries)}
    several = len(verifiers) > 1
    return {"columns": columns, "rows": found.rows, "several": several, "union": next(iter(verifiers), ())}


def _spot(entry: Entry) -> Spot | None:
    natural, certified = entry.group.natural, entry.group.certified
    if natural.mean is None or certified.mean is None:
        return None
    return Spot(entry.look, natural.mean, certified.mean, natural.std or 0.0, certified.std or 0.0)


def _front(arena: Arena) -> Front | None:
    spots = [spot for entry in arena.entries if (spot := _spot(entry)) is not None]
    if not spots:
        return None
    known = [] if arena.eps is None else published_for(arena.data, arena.eps)
    both = tuple(one for one in known if one.natural is not None)
    return Front(arena.where, arena.by, charts.pareto(spots, both, f"{arena.where}, {arena.by}"), both)


def _without_natural(arenas: Sequence[Arena]) -> Iterator[str]:
    places = dict.fromkeys((arena.data, arena.eps) for arena in arenas[:ARENAS] if arena.eps is not None)
    for data, eps in places:
        for one in published_for(data, eps or 0.0):
            if one.natural is None:
                yield f"{one.method} {one.certified:.2f} certified by {one.verifier} ({one.network}, {one.source})"


def _maps(arena: Arena, columns: Sequence[str]) -> Maps | None:
    found = tuple(heat_maps(arena.entries, columns))
    return Maps(arena.where, arena.by, found) if found else None


def _costs(arena: Arena) -> Iterator[Markup]:
    units: dict[str, Callable[[Entry], float | None]] = {
        "seconds of training": lambda entry: entry.group.train_seconds,
        "seconds of certification": lambda entry: entry.certify_seconds,
        "evaluations of the loss": lambda entry: entry.evaluations,
    }
    for unit, of in units.items():
        spots = [
            Spot(entry.look, x, spot.y, 0.0, spot.dy)
            for entry in arena.entries
            if (spot := _spot(entry)) is not None and (x := of(entry)) is not None
        ]
        if spots:
            yield charts.cost(spots, unit, f"{arena.where}, {arena.by}")


def _falls(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Material, list[Part]]]:
    for entry in entries:
        run = entry.runs[0]
        found = waterfall(_verdicts(run))
        if found:
            yield entry, run, found


def _galleries(arenas: Sequence[Arena], count: int, images_of: Callable[[Path], Images | None]) -> Iterator[Gallery]:
    """Of the setting that is certified most among comparable ones, its first seed."""
    for arena in arenas[:GALLERIES] if count else ():
        best = arena.best
        if best is None:
            continue
        run = best.runs[0]
        verdicts = _verdicts(run)
        pictures = gallery(run.directory / LEDGER, verdicts, images_of(run.directory) if verdicts else None, count)
        if pictures:
            heading = f"{best.look.letter}: {best.look.name}, seed {run.seed}; {arena.where}"
            yield Gallery(heading, arena.by, tuple(pictures))


def _verdicts(run: Material) -> list[Verdict]:
    try:
        return read_ledger(run.directory / LEDGER)
    except (DataError, OSError):  # its numbers stand in its summary
        return []


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


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
