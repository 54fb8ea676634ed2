"""What `landscape` and `analyze` have measured of a run, a chart for each small plot of their figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from certtrain.report.analysis import NAME as ANALYSIS
from certtrain.report.analysis_figure import PANELS
from certtrain.report.landscape import draw_line
from certtrain.report.page.svg import inline
from certtrain.report.plain import numbers, read_record

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Charts:
    """Charts under a heading, and a sentence about them."""

    heading: str
    note: str
    charts: tuple[Markup, ...]


def measured_charts(run: Path) -> Iterator[Charts]:
    """Everything that was measured of a run.

    Raises:
        DataError: If a record is damaged.
    """
    landscape = read_record(run / "landscape" / "landscape.json")
    if landscape is not None:
        note = f"Bands: ± 2 standard errors of {landscape['pairs']} pairs. {_images(landscape)}"
        yield Charts("Certified loss along two directions", note, tuple(_along(landscape)))
    analysis = read_record(run / "analysis" / ANALYSIS)
    if analysis is not None:
        charts = (inline(_panel(name, analysis), name) for name in PANELS)
        yield Charts("Bounds and gradients", _images(analysis), tuple(charts))


def _along(record: Record) -> Iterator[Markup]:
    for name in record["relaxations"]:
        for line in record["lines"]:

            def draw(ax: Any, name: str = name, line: Record = line) -> None:
                draw_line(ax, numbers(line["positions"]), line["losses"][name])
                ax.set_title(f"{name}: {line['direction']}")
                ax.set_xlabel("step (units of ‖θ‖)")
                ax.set_ylabel("certified loss")
                ax.legend()

            yield inline(draw, f"Certified loss by {name} along {line['direction']}")


def _panel(name: str, record: Record) -> Any:
    def draw(ax: Any) -> None:
        PANELS[name](ax, record)
        if ax.get_legend_handles_labels()[1] and ax.get_legend() is None:
            ax.legend()

    return draw


def _images(record: Record) -> str:
    return f"On {record['images']} {record['split']} images of {record['data']} at eps {record['eps']:g}."
