"""Which run a record is of: its parts by the names of conf/, and of their options those that set it apart."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from certtrain._paths import config_dir

Node = Mapping[str, Any]

# Losses that read no bounds while training: the relaxation only validates then.
UNBOUNDED = ("natural", "pgd", "trades")
# How something is computed, not what.
CARRIED_OUT = frozenset({"strategy", "member_chunk", "parallel", "groups", "memory_mb"})
# Groups whose choices are parts of others.
INNER = ("loss", "loss/attack", "pgpe/sigma_rule", "pgpe/noise")
MISSING = object()
# Characters of a value in a title; of a longer one the beginning, and a digest that tells it from others.
LONGEST = 32
DIGITS = 4


def identify(config: Node) -> dict[str, Any]:
    """What a run was told to be, as summary.json has it.

    Args:
        config: Its resolved configuration, of any version: what is missing there is None or empty here.

    Returns:
        model, loss: Names of the choices in conf/ that the nodes are closest to, or the targets of others.
        model_options, loss_options, relaxation_options, method_options: All options of each, nested as configured.
        relaxation, backend, method, eps, seed: As configured.
    """
    bounds = _node(config, "relaxation")
    given = {key: value for key, value in bounds.items() if key not in ("name", "backend")}
    method = config.get("method")
    return {
        "model": _choice(_node(config, "model"), "model"),
        "model_options": _options(_node(config, "model")),
        "loss": _choice(_node(config, "loss"), "loss"),
        "loss_options": _options(_node(config, "loss")),
        "relaxation": bounds.get("name", config.get("relaxation") if not bounds else None),
        "backend": bounds.get("backend"),
        "relaxation_options": given,
        "method": method,
        "method_options": dict(_node(config, str(method))),
        "eps": config.get("eps"),
        "seed": config.get("seed"),
    }


def as_record(config: Node) -> dict[str, Any]:
    """What a record would say of a run that has none yet: see `identify`, and the name of its data."""
    data = config.get("data")
    return identify(config) | {"data": {"name": data.get("name") if isinstance(data, Mapping) else data}}


def named(record: Node, part: str) -> str:
    """A part of a run by its name, with the options that differ from the defaults in brackets.

    Args:
        record: What stands in summary.json.
        part: model, loss or method.
    """
    name = str(record.get(part) or f"unknown {part}")
    own, usual = record.get(f"{part}_options") or {}, _usual(part, name)
    apart = ", ".join(_apart(own, usual)) if usual is not None else ""
    return f"{name} ({apart})" if apart else name


def _node(config: Node, key: str) -> Node:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _options(node: Node) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "_target_"}


def _choice(node: Node, *groups: str) -> str | None:
    """The choice of a group that makes the same thing with the fewest other options; the target where there is none."""
    target = node.get("_target_")
    if target is None:
        return None
    near = {
        name: len(list(_apart(_options(node), _options(choice))))
        for group in groups
        for name, choice in _choices(group).items()
        if choice.get("_target_") == target
    }
    return min(near, key=near.__getitem__) if near else str(target)


def _usual(part: str, name: str) -> Node | None:
    """The options that a choice has by default; none for what is no choice, and None where nothing is to be said."""
    if part == "method":
        choice = _choices("method").get(name)
        return None if choice is None else _node(choice, name)
    return _options(_choices(part).get(name, {}))


def _apart(own: Node, usual: Node) -> Iterator[str]:
    """Options that differ, as key=value; one that the default does not have counts, one that is missing does not."""
    for key, value in own.items():
        default = usual.get(key, MISSING)
        if key in CARRIED_OUT or value == default:
            continue
        if not (isinstance(value, Mapping) and value):
            yield f"{key}={_shown(value)}"
            continue
        inner = default if isinstance(default, Mapping) else {}
        if value.get("_target_") != inner.get("_target_"):
            name = str(_choice(value, *INNER))
            yield f"{key}={name}"
            inner = next((_choices(group)[name] for group in INNER if name in _choices(group)), {})
        yield from (f"{key}.{line}" for line in _apart(_options(value), _options(inner)))


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    text = text.replace(" ", "")
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - DIGITS - 1]}…{sha256(text.encode()).hexdigest()[:DIGITS]}"


@functools.cache
def _choices(group: str) -> Mapping[str, Node]:
    """Name -> what it puts into the configuration."""
    return {file.stem: _loaded(group, file.stem) for file in sorted((config_dir() / group).glob("*.yaml"))}


def _loaded(group: str, name: str) -> dict[str, Any]:
    """A choice with the choices that its own list of defaults brings along."""
    import yaml  # here, because reports are imported by whoever never reads a configuration

    node = yaml.safe_load((config_dir() / group / f"{name}.yaml").read_text(encoding="utf-8"))
    for default in node.pop("defaults", ()):
        if not isinstance(default, Mapping):
            continue
        for key, choice in default.items():
            path, _, package = str(key).partition("@")
            inner = _loaded(path[1:] if path.startswith("/") else f"{group}/{path}", str(choice))
            _put(node, (package or path.strip("/").replace("/", ".")).split("."), inner)
    return dict(node)


def _put(node: dict[str, Any], path: list[str], inner: dict[str, Any]) -> None:
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = {**inner, **node.get(path[-1], {})}
