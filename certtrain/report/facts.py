"""What a record says of a run beside its numbers, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from certtrain.report.identity import named
from certtrain.report.rows import variant
from certtrain.times import duration


def facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and value of everything that is known of how a result came about.

    Args:
        record: What stands in summary.json, of any version.
    """
    data = record.get("data") or {}
    if data.get("name") is not None:
        yield "data", _data(data)
    for part, name in (("model", "network"), ("loss", "loss")):
        if record.get(part) is not None:
            yield name, named(record, part)
    if record.get("relaxation") is not None:
        yield "relaxation", variant(record)
    if record.get("method") is not None:
        yield "gradient estimator", named(record, "method")
    if record.get("eps") is not None:
        yield "eps", f"{record['eps']:g} (pixel units, L-infinity)"
    if record.get("trained_eps") is not None:
        yield "trained for eps", f"{record['trained_eps']:g}"
    if record.get("seed") is not None:
        yield "seed", str(record["seed"])
    if record.get("parameters") is not None:
        yield "parameters", f"{record['parameters']:,}"
    if record.get("checkpoint") is not None:
        yield "judged weights", str(record["checkpoint"])
    for key, name in (("train_seconds", "training"), ("certify_seconds", "certification")):
        if record.get(key) is not None:
            yield name, duration(record[key])
    yield from _origin(record)


def _origin(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if record.get("overrides") is not None:
        yield "keys that were set", " ".join(map(str, record["overrides"])) or "none"
    if record.get("command") is not None:
        yield "command", str(record["command"])
    for start in record.get("continued") or ():
        yield "continued by", str(start.get("command"))
    if (parent := record.get("forked_from")) is not None:
        yield "forked from", f"{parent.get('checkpoint')} of {parent.get('run')}, step {parent.get('step')}"
        yield "changed by the fork", "; ".join(map(str, parent.get("changed") or ())) or "nothing"
    if record.get("commit") is not None:
        yield "commit", str(record["commit"])
    if (hardware := record.get("hardware")) is not None:
        yield "hardware", _hardware(hardware)
    found = [f"{name} {number}" for name, number in (record.get("versions") or {}).items() if number]
    if found:
        yield "versions", ", ".join(found)


def _data(data: Mapping[str, Any]) -> str:
    images = [f"{data[f'{split}_images']:,} {split}" for split in ("train", "test") if f"{split}_images" in data]
    content = f", content {data['content']}" if data.get("content") else ""
    return str(data["name"]) + (f", {' and '.join(images)} images" if images else "") + content


def _hardware(hardware: Mapping[str, Any]) -> str:
    counts = [(hardware.get(name), name.removesuffix("s")) for name in ("cores", "threads")]
    parts = [str(hardware.get("cpu")), *(f"{count} {name}" + ("" if count == 1 else "s") for count, name in counts)]
    gpus = hardware.get("gpus") or ()
    parts += [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    return ", ".join(parts)
