"""Gradient estimators of many analysed runs against ∇L_σ: one table and one figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.report.analysis import FOLDER, NAME, number
from certtrain.report.analysis_figure import draw_bias
from certtrain.report.plain import read_record, write_texts
from certtrain.report.style import drawing, figure, save_both

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Estimators whose bias is in question, and the one whose noise is.
BIASED, NOISY = ("grad", "rgs"), "pgpe"
# Plots beside each other.
ACROSS = 4
COLUMNS = (
    *("run", "eps", "weights trained with", "loss of", "σ"),
    *(f"bias of {name}" for name in BIASED),
    *(f"cosine of {name}" for name in BIASED),
    f"noise of {NOISY}",
)


@dataclass(frozen=True)
class Analysed:
    """A run that `analyze` has measured.

    Attributes:
        name: Of the run, among those that stand beside it.
        record: analysis.json.
    """

    name: str
    record: Mapping[str, Any]


def read_analyses(runs: Sequence[Path]) -> list[Analysed]:
    """Those of some runs that were analysed, in their order.

    Raises:
        DataError: If an analysis.json is damaged.
    """
    records = {run: read_record(run / FOLDER / NAME) for run in runs}
    found = {run: record for run, record in records.items() if record is not None}
    return [Analysed(name, record) for name, record in zip(_names(list(found)), found.values(), strict=True)]


def write_analyses(found: Sequence[Analysed], output: Path) -> list[Path]:
    """Writes analyses.csv, .md, .png and .svg into a folder that is there; nothing where nothing was analysed."""
    if not found:
        return []
    rows = list(table_rows(found))
    written = write_texts({"csv": _csv(rows), "md": _markdown(rows)}, output, "analyses")
    return [*written, *save_both(draw_analyses(found), output / "analyses.png")]


def table_rows(found: Sequence[Analysed]) -> Iterator[tuple[str, ...]]:
    """Cells below COLUMNS: one row per run, loss and σ."""
    for one in found:
        for relaxation, measured in one.record["relaxation"].items():
            for sigma, judged in measured["gradients"].items():
                of = judged["estimators"]
                yield (
                    *(one.name, f"{one.record['eps']:g}", one.record["trained_with"], relaxation, sigma),
                    *(_interval(of[name]["bias"]) for name in BIASED),
                    *(number(of[name]["cosine"]["value"]) for name in BIASED),
                    number(of[NOISY]["noise"]),
                )


def draw_analyses(found: Sequence[Analysed]) -> Figure:
    """Bias of the estimators over σ: a plot per run and estimator, those of a run below each other."""
    across = min(ACROSS, len(found))
    blocks = -(-len(found) // across)
    with drawing():
        canvas, axes = figure(across, len(BIASED) * blocks, "Bias of gradients against ∇L_σ", size=(3.4, 2.7))
        for ax in axes:
            ax.set_visible(False)
        for i, one in enumerate(found):
            block, column = divmod(i, across)
            for row, estimator in enumerate(BIASED):
                ax = axes[(len(BIASED) * block + row) * across + column]
                ax.set_visible(True)
                draw_bias(ax, one.record, estimator)
                ax.set_title(f"{one.name}, {one.record['trained_with']}: {estimator}")
        highest = max(ax.get_ylim()[1] for ax in axes if ax.get_visible())
        for ax in axes:
            ax.set_ylim(top=highest)
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return canvas


def _names(runs: Sequence[Path]) -> list[str]:
    """What the paths do not have in common, without a number at the end that all of them have."""
    parts = [run.parts for run in runs]
    if len(parts) > 1:
        shared = next((i for i, some in enumerate(zip(*parts, strict=False)) if len(set(some)) > 1), 0)
        parts = [some[shared:] for some in parts]
        while all(len(some) > 1 for some in parts) and len({some[-1] for some in parts}) == 1:
            parts = [some[:-1] for some in parts]
        return ["/".join(some) or str(run) for some, run in zip(parts, runs, strict=True)]
    return [run.name for run in runs]


def _interval(bias: Mapping[str, Any]) -> str:
    value, low, high = (bias[key] for key in ("value", "low", "high"))
    return "-" if value is None or high is None else f"{number(value)} [{number(low)}, {number(high)}]"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    return text.getvalue()


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
