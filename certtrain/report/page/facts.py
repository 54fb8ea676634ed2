"""What is said of a run in words: what trained it on what, with what, when and by which versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from certtrain.report.collected_text import value_text
from certtrain.report.facts import facts as recorded_facts
from certtrain.report.page.material import Material


def facts(run: Material) -> Iterator[tuple[str, str]]:
    """Names and values; what is not known is left out."""
    yield from recorded_facts(run.record)
    if run.evaluations is not None:
        yield "evaluations of the loss", f"{run.evaluations:,} in {run.steps:,} steps, each on a batch"


def what_was_trained(run: Material) -> Iterator[str]:
    """Data, network, loss and seed, as far as they are known: "network mlp (widths 32, 32)"."""
    for name, words in recorded_facts(run.record):
        if name in ("data", "network", "loss", "seed"):
            yield f"{name} {words}"


def provenance(runs: Sequence[Material]) -> Iterator[tuple[str, str]]:
    """Commit, hardware and versions: every value that occurs."""
    for key, name in (("commit", "commit"), ("hardware", "hardware")):
        found = [in_words(run.record[key]) for run in runs if run.record.get(key)]
        if found:
            yield name, "; ".join(dict.fromkeys(found))
    versions = {
        f"{name} {number}": None
        for run in runs
        for name, number in (run.record.get("versions") or {}).items()
        if number
    }
    if versions:
        yield "versions", ", ".join(versions)


def chosen(config: Mapping[str, Any], group: str) -> str:
    """A class and its options, as the configuration has them: "MLP, widths=[32, 32]"; "" where it says none."""
    name = config.get(f"{group}._target_", config.get(f"{group}.name"))
    if name is None:
        return ""
    own = {key.removeprefix(f"{group}."): value for key, value in config.items() if key.startswith(f"{group}.")}
    options = [f"{key}={value_text(value)}" for key, value in own.items() if key not in ("_target_", "name")]
    return ", ".join([str(name).rpartition(".")[-1], *options])


def in_words(value: Any) -> str:
    """A value of JSON on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {in_words(item)}" for key, item in value.items() if item not in (None, "", [], {}))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value))
    return value_text(value)
