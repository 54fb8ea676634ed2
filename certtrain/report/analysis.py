"""analysis/: bounds and gradients at the weights of a run, as numbers and as tables; pictures are `analysis_figure`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from certtrain.report.analysis_figure import draw_analysis
from certtrain.report.plain import plain, read_record, write_record
from certtrain.report.style import save_both
from certtrain.tables import show

Record = Mapping[str, Any]
FOLDER, NAME = "analysis", "analysis.json"
# Columns that hold words.
WORDS = ("relaxation", "estimator")


@dataclass(frozen=True)
class Table:
    """Numbers for people.

    Attributes:
        title: What they are.
        note: What they mean, in a sentence.
        columns: Headings.
        rows: Cells, in words.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_analysis(record: Record, folder: Path) -> list[Path]:
    """Writes analysis.json and the figure as PNG and SVG; returns the files.

    Args:
        record: What `analyze` has measured.
        folder: Where to; is made.
    """
    return [write_record(record, folder / NAME), *save_both(draw_analysis(plain(record)), folder / "analysis.png")]


def print_analysis(console: Console, record: Record) -> None:
    """Prints all tables."""
    for table in tables(plain(record)):
        title, note = table.title, table.note or None
        shown = RichTable(title=title, caption=note, title_justify="left", caption_justify="left")
        for column in table.columns:
            shown.add_column(column, justify="left" if column in WORDS else "right")
        for row in table.rows:
            shown.add_row(*row)
        show(console, shown)


def analysis_tables(folder: Path) -> list[Table]:
    """The tables of a folder that `write_analysis` has written; none where there is none.

    Raises:
        DataError: If analysis.json is damaged.
    """
    record = read_record(folder / NAME)
    return [] if record is None else list(tables(record))


def tables(record: Record) -> Iterator[Table]:
    """All tables of what was measured."""
    yield _tightness(record)
    yield _neurons(record)
    yield _continuity(record)
    yield _sensitivity(record)
    yield from _gradients(record)


def _tightness(record: Record) -> Table:
    found = record["tightness"]
    reason = f" Exact margins are not known for all: {found['unknown']}." if found["unknown"] else ""
    keys = ("mean_bound", "gap_to_attack", "gap_to_exact")
    return Table(
        f"Tightness ({record['images']} {record['split']} images, eps {record['eps']:g})",
        "Smallest margins in logits, means over images: the certified one, and how far it is below what PGD found and "
        f"below the exact one.{reason}",
        ("relaxation", "certified %", "bound", "PGD - bound", "exact - bound"),
        tuple(
            (name, number(100 * gaps["certified"]), *(number(gaps[key]) for key in keys))
            for name, gaps in found["gaps"].items()
        ),
    )


def _neurons(record: Record) -> Table:
    rows = []
    for name, measured in record["relaxation"].items():
        for place, layer in enumerate(measured["layers"], 1):
            counts = (layer["active"], layer["inactive"], layer["undecided"])
            widths = (layer["width"], layer["undecided_width"])
            rows.append((name, f"{place} ({layer['neurons']})", *map(number, (*counts, *widths))))
    return Table(
        "Neurons",
        "Layer (and its neurons), per image: decided to be active or inactive, and undecided; mean width of "
        "pre-activation bounds, of all and of those that intervals leave undecided.",
        ("relaxation", "layer", "active", "inactive", "undecided", "width", "of undecided"),
        tuple(rows),
    )


def _continuity(record: Record) -> Table:
    return Table(
        "Jumps of the certified loss",
        "Along random segments around the weights: jumps and the sum of their sizes per ‖θ‖ of way, and the largest.",
        ("relaxation", "found", "per ‖θ‖", "sum of sizes", "largest"),
        tuple(
            (name, str(one["count"]), *(number(one[key]) for key in ("rate", "variation", "largest")))
            for name, one in ((name, measured["continuity"]) for name, measured in record["relaxation"].items())
        ),
    )


def _sensitivity(record: Record) -> Table:
    rows = []
    for name, measured in record["relaxation"].items():
        for sigma, one in measured["sensitivity"].items():
            shift = f"{number(one['shift'])} ± {number(one['shift_error'])}"
            rows.append((name, sigma, number(one["loss"]), number(one["change"]), shift))
    return Table(
        "Sensitivity to weight noise",
        "Root mean square change of the loss, and its mean change, both relative to the loss; σ is relative: σ√d/‖θ‖.",
        ("relaxation", "σ", "loss", "change", "mean change"),
        tuple(rows),
    )


def _gradients(record: Record) -> Iterator[Table]:
    """A table per relaxation; what they mean stands below the last."""
    names = list(record["relaxation"])
    for name in names:
        rows = []
        for sigma, one in record["relaxation"][name]["gradients"].items():
            for estimator, quality in one["estimators"].items():
                bias = (quality["bias"][key] for key in ("value", "low", "high"))
                rest = (quality["cosine"]["value"], quality["noise"])
                rows.append((sigma, estimator, *map(number, (*bias, *rest))))
        note = (
            "|E g - ∇L_σ|² / |∇L_σ|² with the ends of a 95 % interval, cosine of E g and ∇L_σ, variance of one "
            "estimate over |∇L_σ|²; - where ∇L_σ is not told from noise. An interval with 0 and 1 in it says nothing."
        )
        yield Table(
            f"Gradient estimators against ∇L_σ: {name}",
            note if name == names[-1] else "",
            ("σ", "estimator", "bias", "from", "to", "cosine", "noise"),
            tuple(rows),
        )


def number(value: float | None) -> str:
    """Three digits; - where there is no number."""
    if value is None:
        return "-"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e5 else f"{value:.3g}"
