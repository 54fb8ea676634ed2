"""margins.png: what each verifier proved, image by image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certtrain.certify import Verdict, tally_verifier
from certtrain.report.style import GREEN, GREY, RED, drawing, figure, save

BINS = 60


def write_margins(verdicts: Sequence[Verdict], path: str | os.PathLike[str], title: str) -> Path | None:
    """Draws histograms of the smallest margins, one per verifier, on one axis with the line at 0.

    Margins far below zero, which a loose verifier has on most images, are gathered at the left end.

    Args:
        verdicts: The ledger.
        path: The PNG to write.
        title: Above everything.

    Returns:
        The PNG; None, and nothing is written, if no verifier has a margin.
    """
    names = list(dict.fromkeys(name for verdict in verdicts for name in verdict.margins))
    margins = {name: [m for v in verdicts if (m := v.margins.get(name)) is not None] for name in names}
    margins = {name: values for name, values in margins.items() if values}
    if not margins:
        return None
    low, high = _range([m for values in margins.values() for m in values])
    with drawing():
        canvas, axes = figure(1, len(margins), title, size=(7.4, 1.35), sharex=True, sharey=True)
        tallest = [
            _draw(ax, name, values, tally_verifier(verdicts, name).decided, low, high)
            for ax, (name, values) in zip(axes, margins.items(), strict=True)
        ]
        # The bar that gathers everything on the left may be cut: its height stands in words.
        axes[0].set_ylim(0, 1.15 * max(*tallest, 1))
        axes[-1].set_xlabel("lower bound of the smallest margin in the box (logits); an image right of 0 is certified")
    return save(canvas, path)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """What is shown: everything that is proved, and as much below zero as matters beside it."""
    ordered = sorted(values)
    high = max(ordered[-1], 0.0)
    low = min(ordered[0], 0.0)
    if high > 0:
        return max(low, -1.5 * high) or -0.05 * high, 1.02 * high
    # Nothing is proved: the half that came nearest.
    return min(ordered[len(ordered) // 2], -1e-6) * 1.5, -0.05 * low or 1.0


def _draw(ax: Any, name: str, values: Sequence[float], images: int, low: float, high: float) -> float:
    """Draws one verifier's margins; returns the height of the tallest bar but the leftmost."""
    step = (high - low) / BINS
    # No bin reaches across zero: there are certified images on one side and others on the other.
    negative, positive = max(1, round(-low / step)), max(1, round(high / step))
    edges = [low * (1 - i / negative) for i in range(negative)]
    edges += [high * i / positive for i in range(positive + 1)]
    shown = [min(max(v, low), high) for v in values]
    below, _, _ = ax.hist([v for v in shown if v <= 0], bins=edges, color=GREY, alpha=0.5)
    above, _, _ = ax.hist([v for v in shown if v > 0], bins=edges, color=GREEN)
    ax.axvline(0, color=RED, linewidth=1.2)
    ax.set_ylabel("images")
    certified, outside = sum(v > 0 for v in values), sum(v < low for v in values)
    note = f"{name}: certified {certified:,} of {images:,} images"
    ax.set_title(note + (f" (leftmost bar: {outside:,} below the axis)" if outside else ""))
    return float(max(*below[1:], *above))
