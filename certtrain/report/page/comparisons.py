"""Charts, maps and images of settings that may be compared: those that the same verifiers judged on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from certtrain.certify import Verdict, read_ledger
from certtrain.errors import DataError
from certtrain.report.page import charts
from certtrain.report.page.charts import Spot
from certtrain.report.page.entries import Arena, Entry, drawn
from certtrain.report.page.gallery import Images, Picture, gallery
from certtrain.report.page.heat import HeatMap, heat_maps
from certtrain.report.page.material import LEDGER, Material
from certtrain.report.page.published import Published, published_for
from certtrain.report.page.waterfall import Part, waterfall

# Settings that get a waterfall, and runs that get a gallery.
FALLS, GALLERIES = 24, 3


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


def _spot(entry: Entry) -> Spot | None:
    natural, certified = entry.group.natural, entry.group.certified
    if natural.mean is None or certified.mean is None:
        return None
    return Spot(entry.look, natural.mean, certified.mean, natural.std or 0.0, certified.std or 0.0)


def fronts(arenas: Sequence[Arena]) -> list[Front]:
    """A chart for each set of settings of which something was certified."""
    return [front for arena in arenas if (front := _front(arena)) is not None]


def charted(arenas: Sequence[Arena]) -> list[Entry]:
    """The settings in these charts."""
    return [entry for arena in arenas for entry in arena.entries if _spot(entry) is not None]


def _front(arena: Arena) -> Front | None:
    spots = [spot for entry in arena.entries if (spot := _spot(entry)) is not None]
    if not spots:
        return None
    known = [] if arena.eps is None else published_for(arena.data, arena.eps)
    both = tuple(one for one in known if one.natural is not None)
    return Front(arena.where, arena.by, charts.pareto(spots, both, f"{arena.where}, {arena.by}"), both)


def without_natural(arenas: Sequence[Arena]) -> Iterator[str]:
    """Published results that have no place in a chart, since their natural accuracy is not known."""
    places = dict.fromkeys((arena.data, arena.eps) for arena in arenas if arena.eps is not None)
    for data, eps in places:
        for one in published_for(data, eps or 0.0):
            if one.natural is None:
                yield f"{one.method} {one.certified:.2f} certified by {one.verifier} ({one.network}, {one.source})"


def maps(arenas: Sequence[Arena], columns: Sequence[str]) -> list[Maps]:
    """The heat maps of each set of settings that has some."""
    found = [Maps(arena.where, arena.by, tuple(heat_maps(arena.entries, columns))) for arena in arenas]
    return [one for one in found if one.maps]


def costs(arenas: Sequence[Arena]) -> list[Markup]:
    """Charts of certified accuracy over what it took."""
    return [chart for arena in arenas for chart in _costs(arena)]


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


def falls(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Material, list[Part]]]:
    """Where the images of the first run of each setting were settled; what has no ledger is left out."""
    for entry in drawn(entries, FALLS):
        run = entry.runs[0]
        found = waterfall(_verdicts(run))
        if found:
            yield entry, run, found


def galleries(arenas: Sequence[Arena], count: int, images_of: Callable[[Path], Images | None]) -> Iterator[Gallery]:
    """Images of the setting that is certified most among comparable ones, of its first seed.

    Args:
        arenas: Sets of comparable settings.
        count: Images of each; 0 for no gallery.
        images_of: Run directory -> its test images by number; None where they are not at hand.
    """
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
