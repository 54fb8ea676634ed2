"""analysis.png: bounds and gradients at the weights of a run, a small plot per measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from certtrain.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SILVER,
    drawing,
    figure,
    relaxation_color,
    relaxation_marker,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
Draw = Callable[[Any, Record], None]

# Relative squared biases and noise are drawn between these: less is as good as nothing, more as bad as all.
LEAST, MOST = 1e-3, 1e4


def draw_analysis(record: Record) -> Figure:
    """All measurements.

    Args:
        record: What `analyze` has measured, as JSON has it.
    """
    title = (
        f"Bounds and gradients at weights trained with {record['trained_with']}, {record['method']}: "
        f"{record['images']} {record['split']} images of {record['data']}, eps {record['eps']:g}"
    )
    with drawing():
        canvas, axes = figure(3, 3, title, size=(3.9, 2.9))
        for ax, panel in zip(axes, PANELS.values(), strict=True):
            panel(ax, record)
        handles, labels = axes[3].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return canvas


def _tightness(ax: Any, record: Record) -> None:
    found = record["tightness"]["gaps"]
    for i, gaps in enumerate(found.values()):
        exact = gaps["gap_to_exact"]
        ax.bar(i - 0.2, gaps["gap_to_attack"] or 0, 0.4, color=SILVER, label=None if i else "PGD - bound")
        if exact is not None:
            ax.bar(i + 0.2, exact, 0.4, color=BLUE, label=None if i else "exact - bound")
    values = [g for gaps in found.values() for g in (gaps["gap_to_attack"], gaps["gap_to_exact"]) if g and g > 0]
    if values and max(values) > 30 * min(values):
        ax.set_yscale("log")
    _names(ax, list(found))
    ax.set_title("Looseness of bounds")
    ax.set_ylabel("logits, mean over images")
    ax.legend()


def _neurons(ax: Any, record: Record) -> None:
    names = [name for name, measured in record["relaxation"].items() if measured["layers"]]
    for i, name in enumerate(names):
        layers, below = record["relaxation"][name]["layers"], 0.0
        total = sum(layer["neurons"] for layer in layers)
        for key, color in (("active", GREEN), ("inactive", GREY), ("undecided", ORANGE)):
            share = 100 * sum(layer[key] for layer in layers) / total
            ax.bar(i, share, 0.7, bottom=below, color=color, label=None if i else key)
            below += share
    _names(ax, names)
    ax.set_title("Neurons")
    ax.set_ylabel("% of all layers")
    ax.set_ylim(0, 128)
    ax.set_yticks([0, 25, 50, 75, 100])
    ax.legend(ncols=3, loc="upper center", columnspacing=1.0, handlelength=1.2)


def _jumps(ax: Any, record: Record) -> None:
    found = {name: measured["continuity"] for name, measured in record["relaxation"].items()}
    top = max((one["rate"] for one in found.values()), default=0.0) or 1.0
    for i, (name, one) in enumerate(found.items()):
        ax.bar(i, one["rate"], 0.7, color=relaxation_color(name))
        note = f"{one['rate']:.0f}\nlargest\n{one['largest']:.2g}" if one["count"] else "none"
        ax.text(i, one["rate"] + 0.02 * top, note, ha="center", va="bottom", fontsize=7)
    _names(ax, list(found))
    ax.set_ylim(0, 1.4 * top)
    ax.set_title("Jumps of the certified loss")
    ax.set_ylabel("per ‖θ‖ in random directions")


def _sensitivity(ax: Any, record: Record) -> None:
    for shift, (name, measured) in enumerate(record["relaxation"].items()):
        sigmas = [_moved(float(sigma), shift) for sigma in measured["sensitivity"]]
        values = [_number(one["change"]) for one in measured["sensitivity"].values()]
        ax.plot(sigmas, values, marker=relaxation_marker(name), markersize=4, color=relaxation_color(name), label=name)
    _axes(ax, record, "Sensitivity to weight noise", "rms change / loss")


def draw_bias(ax: Any, record: Record, estimator: str) -> None:
    """An estimator's bias over σ, a line per relaxation, on an axis that ends above the highest interval.

    A value without an interval says nothing, and is left out.
    """
    highest = 1.0
    for shift, (name, measured) in enumerate(record["relaxation"].items()):
        points = [(sigma, one) for sigma, one in _points(measured, estimator, shift, "bias") if one["high"] is not None]
        values = [_clipped(one["value"]) for _, one in points]
        ends = [(_clipped(one["low"]), _clipped(one["high"])) for _, one in points]
        errors = [
            [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
            [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)],
        ]
        highest = max([highest, *(x for x in (*values, *(high for _, high in ends)) if math.isfinite(x))])
        sigmas = [sigma for sigma, _ in points]
        style = {"marker": relaxation_marker(name), "markersize": 4, "capsize": 2, "linewidth": 1.1, "label": name}
        ax.errorbar(sigmas, values, yerr=errors, color=relaxation_color(name), **style)
    ax.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
    _axes(ax, record, f"Bias of {estimator}", "squared, relative to ∇L_σ")
    ax.set_ylim(LEAST / 2, 2 * highest)


def _noise(ax: Any, record: Record, estimator: str) -> None:
    for shift, (name, measured) in enumerate(record["relaxation"].items()):
        points = _points(measured, estimator, shift, "noise")
        known = [(sigma, value) for sigma, value in points if value is not None]
        ax.plot(
            [sigma for sigma, _ in known],
            [_clipped(value) for _, value in known],
            marker=relaxation_marker(name),
            markersize=4,
            color=relaxation_color(name),
            label=name,
        )
    ax.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
    evaluations = next(iter(_of(next(iter(record["relaxation"].values())), estimator)))[1]["evaluations"]
    _axes(ax, record, f"Noise of {estimator} ({evaluations} evaluations)", "variance / |∇L_σ|²")
    ax.set_ylim(LEAST / 2, 2 * MOST)


def _of(measured: Record, estimator: str) -> list[tuple[float, Record]]:
    return [(float(sigma), one["estimators"][estimator]) for sigma, one in measured["gradients"].items()]


def _points(measured: Record, estimator: str, shift: int, key: str) -> list[tuple[float, Any]]:
    """(σ, what was measured)."""
    found = ((_moved(sigma, shift), quality[key]) for sigma, quality in _of(measured, estimator))
    return [(sigma, one) for sigma, one in found if not (isinstance(one, Mapping) and one["value"] is None)]


def _moved(sigma: float, shift: int) -> float:
    """A little to the right for each relaxation, so that they do not hide each other."""
    return sigma * 1.06**shift


def _clipped(value: float | None) -> float:
    return math.nan if value is None else min(MOST, max(LEAST, value))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _axes(ax: Any, record: Record, title: str, unit: str) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    sigmas = [float(sigma) for sigma in record["sigmas"]]
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas])
    ax.set_title(title)
    ax.set_xlabel("σ√d/‖θ‖")
    ax.set_ylabel(unit)


def _names(ax: Any, names: Sequence[str]) -> None:
    ax.set_xticks(range(len(names)), names, rotation=20, ha="right")
    ax.grid(axis="x", visible=False)


# One small plot each.
PANELS: Mapping[str, Draw] = {
    "looseness of bounds": _tightness,
    "neurons": _neurons,
    "jumps": _jumps,
    "sensitivity to weight noise": _sensitivity,
    "bias of grad": lambda ax, record: draw_bias(ax, record, "grad"),
    "bias of rgs": lambda ax, record: draw_bias(ax, record, "rgs"),
    "noise of rgs": lambda ax, record: _noise(ax, record, "rgs"),
    "noise of pgpe": lambda ax, record: _noise(ax, record, "pgpe"),
    "noise of pgpe with a gradient": lambda ax, record: _noise(ax, record, "pgpe+grad"),
}
