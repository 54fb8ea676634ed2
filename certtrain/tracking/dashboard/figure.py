"""A picture of the workspace's layout: which panels stand where. What is in them only W&B draws."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certtrain.report.style import GREY, SILVER, drawing, save
from certtrain.tracking.dashboard.definition import ACROSS
from certtrain.tracking.dashboard.panels import Section, title_of

# Inches; and characters of a line in a box.
WIDTH, ROW, HEADING, GAP, CHARACTERS = 9.0, 0.62, 0.34, 0.12, 44


def write_layout(sections: Sequence[Section], path: Path) -> Path:
    """Draws the sections as boxes.

    Args:
        sections: Of the workspace.
        path: The PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    height = sum(HEADING + ROW * math.ceil(len(section.panels) / ACROSS) + GAP for section in sections)
    with drawing():
        canvas = Figure(figsize=(WIDTH, height))
        axes = canvas.add_axes((0.01, 0.0, 0.98, 1.0))
        axes.set(xlim=(0, ACROSS), ylim=(height, 0))
        axes.axis("off")
        top = 0.0
        for section in sections:
            axes.text(0.02, top + HEADING - 0.08, section.name, fontweight="bold", fontsize=10)
            top += HEADING
            for number, panel in enumerate(section.panels):
                row, column = divmod(number, ACROSS)
                corner = (column + 0.03, top + ROW * row + 0.05)
                box = FancyBboxPatch(
                    corner, 0.94, ROW - 0.1, boxstyle="round,pad=0,rounding_size=0.03", fc="white", ec=SILVER
                )
                axes.add_patch(box)
                _label(axes, panel, corner)
            top += ROW * math.ceil(len(section.panels) / ACROSS) + GAP
    return save(canvas, path)


def _label(axes: Any, panel: Any, corner: tuple[float, float]) -> None:
    """A panel's title, and its kind below it."""
    lines = textwrap.wrap(title_of(panel), CHARACTERS)
    axes.text(corner[0] + 0.04, corner[1] + 0.07, "\n".join(lines), fontsize=8, va="top")
    axes.text(corner[0] + 0.04, corner[1] + ROW - 0.17, type(panel).__name__, fontsize=6.5, color=GREY)
