"""margins.png: what each verifier proved, image by image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.certify import Verdict, tally_verifier
from certtrain.certify.cascade import AskFirst
from certtrain.certify.summary import cascade_of
from certtrain.report.style import GREEN, GREY, RED, drawing, figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 60
# Smallest end of the axis, in logits: all that is closer to zero is as good as zero.
LEAST = 1e-6


def write_margins(verdicts: Sequence[Verdict], path: str | os.PathLike[str], title: str) -> Path | None:
    """Draws histograms of the smallest margins; see `draw_margins`.

    Args:
        verdicts: The ledger.
        path: The PNG to write.
        title: Above everything.

    Returns:
        The PNG; None, and nothing is written, if no verifier has a margin.
    """
    canvas = draw_margins(verdicts, title)
    return None if canvas is None else save(canvas, path)


@dataclass(frozen=True)
class Histogram:
    """The margins of one verifier.

    Attributes:
        note: Its name, and how many images it certified.
        values: Lower bounds of the smallest margin, in logits; an image each.
        low: Where the axis begins, < 0.
        high: Where it ends, > 0.
    """

    note: str
    values: tuple[float, ...]
    low: float
    high: float


def histograms(verdicts: Sequence[Verdict]) -> list[Histogram]:
    """One for each verifier that has margins, all on one axis.

    Args:
        verdicts: The ledger.
    """
    names = list(dict.fromkeys(name for verdict in verdicts for name in verdict.margins))
    margins = {name: tuple(m for v in verdicts if (m := v.margins.get(name)) is not None) for name in names}
    margins = {name: values for name, values in margins.items() if values}
    if not margins:
        return []
    low, high = _range([m for values in margins.values() for m in values])
    return [Histogram(_note(verdicts, name, values), values, low, high) for name, values in margins.items()]


def draw_margins(verdicts: Sequence[Verdict], title: str) -> Figure | None:
    """A histogram per verifier, all on one axis with the line at 0; None if no verifier has a margin.

    Margins far below zero, which a loose verifier has on most images, are gathered at the left end.

    Args:
        verdicts: The ledger.
        title: Above everything.
    """
    from matplotlib.ticker import MaxNLocator

    found = histograms(verdicts)
    if not found:
        return None
    with drawing():
        canvas, axes = figure(1, len(found), title, size=(7.4, 1.35), sharex=True, sharey=True)
        tallest = [draw_histogram(ax, one) for ax, one in zip(axes, found, strict=True)]
        # The bar that gathers everything on the left may be cut: its height stands in words.
        axes[0].set_ylim(0, 1.15 * max(*tallest, 1))
        axes[0].yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes[-1].set_xlabel("lower bound of the smallest margin in the box (logits); an image right of 0 is certified")
    return canvas


def _range(values: Sequence[float]) -> tuple[float, float]:
    """What is shown: everything that is proved, and as much below zero as matters beside it; low < 0 < high."""
    ordered = sorted(values)
    if ordered[-1] > 0:
        high = max(1.02 * ordered[-1], LEAST)
        # A bar of what is not proved needs some width, however close to zero its margins are.
        return min(max(ordered[0], -1.5 * high), -0.05 * high), high
    # Nothing is proved: the half that came nearest.
    low = min(1.5 * ordered[len(ordered) // 2], -LEAST)
    return low, -0.05 * low


def _note(verdicts: Sequence[Verdict], name: str, values: Sequence[float]) -> str:
    """How many images a verifier certified, and of how many: where others were asked first, of what these left."""
    certified = sum(value > 0 for value in values)
    if cascade_of(verdicts) == AskFirst.name:
        left = len(values)
        return f"{name}: certified {certified:,} of the {left:,} image{'' if left == 1 else 's'} that it judged"
    images = tally_verifier(verdicts, name).decided
    return f"{name}: certified {certified:,} of {images:,} image{'' if images == 1 else 's'}"


def draw_histogram(ax: Any, found: Histogram, bins: int = BINS) -> float:
    """Draws one verifier's margins; returns the height of the tallest bar but the leftmost."""
    values, low, high = found.values, found.low, found.high
    step = (high - low) / bins
    # No bin reaches across zero: certified images are on one side, the others, with zero itself, on the other.
    negative, positive = max(1, round(-low / step)), max(1, round(high / step))
    shown = [max(v, low) for v in values]
    left = [low * (1 - i / negative) for i in range(negative + 1)]
    right = [high * i / positive for i in range(positive + 1)]
    below, _, _ = ax.hist([v for v in shown if v <= 0], bins=left, color=GREY, alpha=0.5)
    above, _, _ = ax.hist([v for v in shown if v > 0], bins=right, color=GREEN)
    ax.axvline(0, color=RED, linewidth=1.2)
    ax.set_xlim(low - step, high + step)
    ax.set_ylabel("images")
    outside = sum(v < low for v in values)
    ax.set_title(found.note + (f" (leftmost bar: {outside:,} below the axis)" if outside else ""))
    # The leftmost bar is cut only where it gathers what lies further left.
    return float(max(*(below[1:] if outside else below), *above))
