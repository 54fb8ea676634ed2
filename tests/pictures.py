"""What is drawn in a figure, and where: without looking at pixels."""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from certtrain.report.style import drawing

# Pixels: how far boxes of texts may reach into each other, which have a little room around their letters.
SLACK = 1.5


def texts(figure: Figure) -> dict[str, list[Bbox]]:
    """Everything that is written, with the boxes of its letters in pixels."""
    drawn: list[Text] = []
    plain = Text.draw

    def draw(self: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        drawn.append(self)
        plain(self, renderer, *args, **kwargs)

    with drawing(), pytest.MonkeyPatch.context() as patch:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # places everything
        patch.setattr(Text, "draw", draw)
        canvas.draw()
    found: dict[str, list[Bbox]] = {}
    for text in drawn:
        if text.get_visible() and text.get_text().strip():
            found.setdefault(text.get_text(), []).append(text.get_window_extent(canvas.get_renderer()))
    return found


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Texts that are written over each other."""
    boxes = [(text, box.padded(-SLACK)) for text, found in texts(figure).items() for box in found]
    return [(a, b) for (a, first), (b, second) in combinations(boxes, 2) if Bbox.intersection(first, second)]


def cut_off(figure: Figure) -> list[str]:
    """Texts that do not lie within the figure."""
    whole = figure.bbox.padded(SLACK)
    return [
        text
        for text, found in texts(figure).items()
        for box in found
        if not (whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1)
    ]


def points(line: Any) -> list[tuple[float, float]]:
    """Of a line, where it has numbers."""
    return [(float(x), float(y)) for x, y in line.get_xydata() if math.isfinite(x) and math.isfinite(y)]


def outside(axes: Sequence[Any]) -> Iterator[tuple[str, float, float]]:
    """Points of lines that lie beside their axes."""
    for ax in axes:
        (left, right), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
        for line in ax.get_lines():
            if line.get_transform() != ax.transData:
                continue  # a line across the whole of the axes
            yield from (
                (ax.get_title(loc="left"), x, y)
                for x, y in points(line)
                if not (left <= x <= right and bottom <= y <= top)
            )


def check_layout(figure: Figure) -> None:
    """Nothing is written over anything else or cut off, and nothing is drawn beside its axes."""
    assert overlaps(figure) == []
    assert cut_off(figure) == []
    assert list(outside(figure.axes)) == []
