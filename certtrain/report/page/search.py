"""What searches have found: trials averaged over their seeds, which no other one beats, and which ended early."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from certtrain.report.page.jobs import records
from certtrain.report.page.material import duration
from certtrain.report.page.svg import inline
from certtrain.report.style import BLUE, GREY, ORANGE, percent_limits

SEARCH = "search.json"
STATES = ("complete", "running", "pruned", "failed")


@dataclass(frozen=True)
class Trial:
    """One choice of values.

    Attributes:
        number: From 0.
        state: complete, pruned, failed or running.
        best: Whether no other one beats it.
        chosen: The values, as typed.
        figures: A cell for every figure: means over the repetitions, or what was reached before it was pruned.
        jobs: Their numbers.
        note: Why it is not complete, or what it breaks.
        took: Of its jobs together.
    """

    number: int
    state: str
    best: bool
    chosen: str
    figures: tuple[str, ...]
    jobs: str
    note: str
    took: str


@dataclass(frozen=True)
class Search:
    """A search and its trials, the best first.

    Attributes:
        where: Its directory.
        words: How many trials came to what.
        goal: Objectives and constraints.
        headings: Of the figures.
        trials: All that have begun.
        chart: The first two objectives against each other, or the only one over the trials; None before a result.
    """

    where: str
    words: str
    goal: str
    headings: tuple[str, ...]
    trials: tuple[Trial, ...]
    chart: Markup | None


def searches(directories: Sequence[Path]) -> tuple[list[Search], list[str]]:
    """The searches at or below some directories, and a line for each whose record cannot be read."""
    found, trouble = [], []
    for file in records(directories, SEARCH):
        try:
            found.append(_read(file.parent, json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            trouble.append(f"{file} is no record of a search; its runs are shown, its trials are not")
    return found, trouble


def _read(directory: Path, record: Mapping[str, Any]) -> Search:
    objectives = [(str(one["key"]), str(one["direction"])) for one in record["objectives"]]
    rows: list[Mapping[str, Any]] = sorted(record["trials"], key=lambda row: _rank(row, objectives[0]))
    keys = list(dict.fromkeys([*(key for key, _ in objectives), *(key for row in rows for key in row["figures"])]))
    counts = {state: sum(row["state"] == state for row in rows) for state in STATES}
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    goal = " and ".join(f"{direction} {key}" for key, direction in objectives)
    kept = f", keeping {' and '.join(map(str, record['constraints']))}" if record.get("constraints") else ""
    return Search(
        str(directory),
        f"{len(rows)} trials: {words}",
        goal + kept,
        tuple(keys),
        tuple(_trial(row, keys, objectives[0][0]) for row in rows),
        _chart(rows, objectives),
    )


def _rank(row: Mapping[str, Any], objective: tuple[str, str]) -> tuple[bool, int, float, int]:
    """Best ones first, then complete ones by the first objective, then the others."""
    key, direction = objective
    value = float(row["figures"].get(key, 0.0))
    return (not row["best"], STATES.index(row["state"]), -value if direction == "maximize" else value, row["trial"])


def _trial(row: Mapping[str, Any], keys: Sequence[str], objective: str) -> Trial:
    cells = [_shown(key, row["figures"][key]) if key in row["figures"] else "–" for key in keys]
    reached = _reached(row)
    if not row["figures"] and reached:
        cells[keys.index(objective)] = f"{_shown(objective, reached[1])} after {reached[0]} epochs"
    breaks = "breaks a constraint" if row.get("feasible") is False else ""
    return Trial(
        int(row["trial"]),
        str(row["state"]),
        bool(row["best"]),
        " ".join(f"{key}={_brief(value)}" for key, value in row["values"].items()),
        tuple(cells),
        ", ".join(map(str, row["jobs"])),
        str(row.get("reason") or breaks),
        duration(row.get("seconds")),
    )


def _reached(row: Mapping[str, Any]) -> tuple[int, float] | None:
    """The last report of a trial that was watched: epochs behind it, and the objective then."""
    reports = {int(epoch): float(value) for epoch, value in (row.get("reports") or {}).items()}
    return (max(reports), reports[max(reports)]) if reports else None


def _chart(rows: Sequence[Mapping[str, Any]], objectives: Sequence[tuple[str, str]]) -> Markup | None:
    done = [row for row in rows if row["state"] == "complete"]
    if not done:
        return None
    first, *others = [key for key, _ in objectives]
    groups = [
        ("o", GREY, [row for row in done if not row["best"]]),
        ("s", BLUE, [row for row in done if row["best"]]),
        ("v", ORANGE, [row for row in rows if row["state"] == "pruned" and _reached(row) and not others]),
    ]

    def place(row: Mapping[str, Any]) -> tuple[float, float]:
        if others:
            return _percent(first, row["figures"][first]), _percent(others[0], row["figures"][others[0]])
        reached = _reached(row)
        value = row["figures"][first] if first in row["figures"] else reached[1] if reached else 0.0
        return float(row["trial"]), _percent(first, value)

    def draw(ax: Any) -> None:
        for marker, color, members in groups:
            for row in members:
                ax.plot(*place(row), marker=marker, color=color, markersize=6, linestyle="none")
                if row["best"]:
                    ax.annotate(str(row["trial"]), place(row), (5, 4), textcoords="offset points", fontsize=8)
        placed = [place(row) for _, _, members in groups for row in members]
        keys = (first, others[0]) if others else ("", first)
        for key, limits, values in zip(keys, (ax.set_xlim, ax.set_ylim), zip(*placed, strict=True), strict=True):
            if key.endswith("accuracy"):
                percent_limits(limits, values)
        ax.set_xlabel(_label(first) if others else "trial")
        ax.set_ylabel(_label(others[0] if others else first))

    name = f"{others[0]} over {first}" if others else f"{first} over trials"
    return inline(draw, f"{name}, a point for each trial", (4.5, 3.4))


def _percent(key: str, value: Any) -> float:
    return 100 * float(value) if key.endswith("accuracy") else float(value)


def _label(key: str) -> str:
    return f"{key} (%)" if key.endswith("accuracy") else key


def _shown(key: str, value: Any) -> str:
    if key.endswith("seconds"):
        return duration(float(value))
    return f"{_percent(key, value):.2f} %" if key.endswith("accuracy") else f"{float(value):.4g}"


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
