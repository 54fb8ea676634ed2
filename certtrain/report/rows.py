"""The result as rows of a table: the same ones in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from certtrain.bounds.registry import NATIVE


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        what: What was counted.
        percent: Of all images; "–" where nothing was counted.
        images: How many of how many.
        union: Whether it is the certified accuracy that is reported.
    """

    what: str
    percent: str
    images: str
    union: bool = False


def result_rows(record: Mapping[str, Any]) -> list[Row]:
    """Natural, attacked, certified by each verifier, certified by their union.

    Args:
        record: What stands in summary.json.
    """
    total = int(record.get("images") or 0)
    by = record.get("certified_accuracy_by") or {}
    rows = [
        _row("natural: correct as they are", record.get("natural_accuracy"), total),
        _row("attacked: correct under attack", record.get("attacked_accuracy"), total),
        *(_row(f"certified by {name}", fraction, total) for name, fraction in by.items()),
    ]
    return [*rows, _row("certified by any (union)", record.get("certified_accuracy"), total, union=True)]


def _row(what: str, fraction: float | None, total: int, union: bool = False) -> Row:
    if fraction is None:
        return Row(what, "–", "–", union)
    return Row(what, f"{100 * fraction:.2f}", f"{round(fraction * total):,} of {total:,}", union)


def title(record: Mapping[str, Any]) -> str:
    """What trained, how, and for which radius: no number is shown without it."""
    eps = record.get("eps")
    return (
        f"trained with {variant(record)}, {record.get('method') or 'unknown method'}, "
        f"eps {'unknown' if eps is None else f'{eps:g}'}"
    )


def variant(record: Mapping[str, Any]) -> str:
    """The relaxation that trained; behind it, in brackets, what sets it apart from the plain one of that name.

    That is a backend other than native, and options that differ from their defaults. Options of relaxations
    whose defaults are not known are left out; they stand in summary.json.
    """
    name, backend = str(record.get("relaxation") or "unknown relaxation"), record.get("backend")
    options = record.get("relaxation_options") or {}
    apart = [] if backend in (None, "native") else [str(backend)]
    for known in fields(NATIVE[name]) if name in NATIVE else ():  # type: ignore[arg-type]
        if known.name in options and options[known.name] != known.default:
            value = options[known.name]
            apart.append(f"{known.name}={str(value).lower() if isinstance(value, bool) else value}")
    return f"{name} ({', '.join(apart)})" if apart else name


def verifiers(record: Mapping[str, Any]) -> str:
    """Who certified, in words."""
    names = list(record.get("certified_accuracy_by") or {})
    return f"certified by {', '.join(names)}" if names else "not certified"
