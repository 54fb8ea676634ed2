"""What a run is, in the words by which it is found among others: title, tags, configuration, results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certtrain.nodes import flatten
from certtrain.report.identity import as_record
from certtrain.report.rows import title_of

Record = Mapping[str, Any]
# Names of W&B's tags have so many characters at most.
LONGEST_TAG = 64
# W&B takes no longer names.
LONGEST_TITLE = 128
# Of summary.json: what was told, not found. It stands in the configuration.
TOLD = frozenset({"eps", "trained_eps", "seed", "config", "versions", "data", "hardware", "failures"})
OPTIONS = "_options"
# Of summary.json: where a run comes from.
PROVENANCE = ("command", "commit", "overrides", "checkpoint")
# Folders above a run in which a sweep may have its own record.
LEVELS = 3


@dataclass(frozen=True)
class Facts:
    """A run among others.

    Attributes:
        data: The data set.
        model: The network, as it was chosen.
        loss: As it was chosen.
        relaxation: Which trained.
        method: How gradients were estimated.
        eps: Radius, in pixel units.
        seed: Of the run.
        sigma: Of the weight noise; 0 for plain gradients.
        population_size: Members, or gradients, per step; 1 for plain gradients.
        title: Of the run in one line, as summary.json will have it.
    """

    data: str
    model: str
    loss: str
    relaxation: str
    method: str
    eps: float
    seed: int
    sigma: float
    population_size: int
    title: str

    @property
    def setting(self) -> str:
        """What most comparisons are between."""
        return f"{self.relaxation} × {self.method}"

    @property
    def tags(self) -> tuple[str, ...]:
        """Data, model, loss, relaxation and method; each once."""
        return tuple(
            dict.fromkeys(
                tag[:LONGEST_TAG] for tag in (self.data, self.model, self.loss, self.relaxation, self.method) if tag
            )
        )

    def row(self) -> dict[str, Any]:
        """What runs are compared by, under its name."""
        return {**{key: value for key, value in vars(self).items() if key != "title"}, "setting": self.setting}


def facts_of(node: Record) -> Facts:
    """Reads what a run is off its configuration, whichever version wrote it.

    Args:
        node: Resolved.
    """
    told = as_record(node)
    noisy: Record = next((node[name] for name in ("pgpe", "rgs") if isinstance(node.get(name), Mapping)), {})
    return Facts(
        data=str(told["data"]["name"] or ""),
        model=str(told["model"] or ""),
        loss=str(told["loss"] or ""),
        relaxation=str(told["relaxation"] or ""),
        method=str(told["method"] or ""),
        eps=float(told["eps"] or 0.0),
        seed=int(told["seed"] or 0),
        sigma=float(noisy.get("sigma", 0.0)),
        population_size=int(noisy.get("population_size", noisy.get("samples", 1))),
        title=title_of(node),
    )


def name_of(facts: Facts, record: Record) -> str:
    """A run's name in W&B: the title that its summary.json has, or will have; cut to what W&B takes."""
    name = str(record.get("title") or facts.title)
    return name if len(name) <= LONGEST_TITLE else f"{name[: LONGEST_TITLE - 2]} …"


def flat(node: Record, prefix: str = "") -> dict[str, Any]:
    """One key per value: pgpe.sigma becomes pgpe/sigma.

    W&B takes a dot in a name for a nested node where it filters and groups, and finds nothing then.
    """
    # An empty node, which is all that is left of mappings, says nothing there.
    return {key: value for key, value in flatten(node, prefix, "/") if not isinstance(value, Mapping)}


def configuration(node: Record, facts: Facts, record: Record) -> dict[str, Any]:
    """What W&B holds as a run's configuration: every key, the facts that runs are compared by, and where it comes from.

    Args:
        node: Resolved.
        facts: Of the same run.
        record: Its summary.json; empty before it is written.
    """
    told = {key: record[key] for key in PROVENANCE if isinstance(record.get(key), (str, list))}
    nested = {key: record[key] for key in ("data", "versions", "hardware") if isinstance(record.get(key), Mapping)}
    return {**flat(node), **facts.row(), **flat(told, "provenance/"), **flat(nested, "provenance/")}


def results(record: Record) -> dict[str, float]:
    """The numbers of summary.json under flat names, such as certified_accuracy_by/ibp and stages/attack/seconds."""
    found = {key: value for key, value in record.items() if key not in TOLD and not key.endswith(OPTIONS)}
    stages = found.pop("stages", None) or ()
    numbers = {**flat(found), **{k: v for stage in stages for k, v in flat(stage, f"stages/{stage['name']}/").items()}}
    numbers["failures"] = sum(int(row.get("images", 0)) for row in record.get("failures") or ())
    return {key: value for key, value in numbers.items() if isinstance(value, (int, float)) and value == value}


def sweep_of(directory: Path) -> str | None:
    """The name of the sweep that a run is a job of; None for a single run."""
    above = list(directory.resolve().parents)[:LEVELS]
    return next((folder.name for folder in above if (folder / "sweep.json").is_file()), None)
