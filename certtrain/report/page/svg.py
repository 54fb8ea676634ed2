"""Matplotlib's drawings as inline SVG: small, in the colours of the page's style sheet, light or dark."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from certtrain.report.style import BLUE, GOLD, GREEN, GREY, ORANGE, PURPLE, RED, SILVER, SKY, drawing

# What is drawn in -> the property of the style sheet that has a value for light pages and one for dark ones.
INK, GRID, PAPER = "#1c1c1c", "#e5e5e5", "#fefefe"
PROPERTIES = {
    **{INK: "ink", GRID: "grid", PAPER: "paper", GREY: "grey", SILVER: "silver"},
    **{BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red", PURPLE: "purple", SKY: "sky", GOLD: "gold"},
}
SETTINGS = {
    "svg.fonttype": "none",  # text stays text: it is found, read aloud, and small
    "svg.hashsalt": "certtrain",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "grid.color": GRID,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK),
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
# What a tenth of a point is exact enough for; never the text.
COORDINATES = re.compile(r' (?:d|x|y|width|height|transform|points)="[^"]*"')
# Inches; a telephone shows one chart in its width.
SIZE = (3.7, 2.7)
_numbers = itertools.count()


def inline(draw: Callable[[Any], None], name: str, size: tuple[float, float] = SIZE) -> Markup:
    """Draws one chart and returns it as an svg element, to be put into a page as it is.

    Args:
        draw: Draws into the axes that it is given, in colours of `PROPERTIES`.
        name: What the chart shows, for who does not see it.
        size: In inches.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with drawing(), rc_context(SETTINGS):  # type: ignore[arg-type]
        canvas = Figure(figsize=size, layout="constrained")
        draw(canvas.subplots())
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Markup(_placed(file.getvalue(), name, next(_numbers)))


def _placed(text: str, name: str, number: int) -> str:
    """A whole file as an element among others of one page."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for found in set(re.findall(r'id="([^"]+)"', svg)):  # ids are of the page: those of two drawings may be the same
        svg = re.sub(rf'(id="|#){re.escape(found)}(?=["\)])', rf"\g<1>s{number}-{found}", svg)
    svg = COORDINATES.sub(lambda found: re.sub(r"(\.\d)\d+", r"\1", found[0]), svg)
    svg = re.sub(r" ?font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", svg)
    for color, known in PROPERTIES.items():
        svg = re.sub(color, f"var(--{known})", svg, flags=re.IGNORECASE)
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    width, height = (float(side) for side in view.groups()) if view else (266.0, 194.0)
    label = name.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    head = f'<svg class="chart" role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}">'
    body = svg[svg.index(">") + 1 :]
    return re.sub(r"\n\s*", "\n", head + body).strip()
