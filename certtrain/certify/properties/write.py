"""Properties as VNN-LIB files that any tool of VNN-COMP reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal
from math import prod
from pathlib import Path

from torch import Tensor

from certtrain.certify.properties.property import Conjunction, Property, Region
from certtrain.errors import ConfigError
from certtrain.files import replacing


def write_vnnlib(property: Property, path: str | os.PathLike[str], comment: str = "") -> None:
    """Writes a property; reading it gives the same one, bit by bit.

    Args:
        property: What to write. Regions with the same box are read as one.
        path: The file; its folder exists.
        comment: Lines for people at its top.

    Raises:
        ConfigError: If nothing is unsafe in the property: a file without outputs is none.
    """
    with replacing(Path(path)) as partial:
        partial.write_text(vnnlib_text(property, comment), encoding="utf-8")


def vnnlib_text(property: Property, comment: str = "") -> str:
    """The text of `write_vnnlib`."""
    regions = [region for region in property.regions if region.unsafe]
    outputs = property.num_outputs
    if not regions or outputs is None:
        raise ConfigError("a property in which nothing is unsafe cannot be written as VNN-LIB: it names no output")
    inputs = prod(property.input_shape or ())
    lines = [f"; {line}" for line in comment.splitlines()]
    lines += [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    if len(regions) == 1:
        lines += [f"(assert {bound})" for bound in _bounds(regions[0])]
        lines += _unsafe(regions[0])
    else:
        alternatives = [_and([*_bounds(r), *_rows(one)]) for r in regions for one in r.unsafe]
        lines += ["(assert (or", *(f"    {one}" for one in alternatives), "))"]
    return "\n".join(lines) + "\n"


def _bounds(region: Region) -> Iterator[str]:
    ends = zip(region.box.lower.flatten().tolist(), region.box.upper.flatten().tolist(), strict=True)
    for i, (low, high) in enumerate(ends):
        yield f"(>= X_{i} {_number(low)})"
        yield f"(<= X_{i} {_number(high)})"


def _unsafe(region: Region) -> list[str]:
    """Assertions of one region; several only where they all must hold."""
    if len(region.unsafe) == 1:
        return [f"(assert {row})" for row in _rows(region.unsafe[0])]
    return ["(assert (or", *(f"    {_and(_rows(one))}" for one in region.unsafe), "))"]


def _and(parts: list[str]) -> str:
    return f"(and {' '.join(parts)})" if parts else "(and)"


def _rows(conjunction: Conjunction) -> list[str]:
    pairs = zip(conjunction.coefficients, conjunction.constants.tolist(), strict=True)
    return [_row(row, limit) for row, limit in pairs]


def _row(row: Tensor, limit: float) -> str:
    """One constraint, in the plain forms that all tools understand where it has one."""
    factors = {i: f for i, f in enumerate(row.tolist()) if f} or {0: 0.0}
    match sorted((f, i) for i, f in factors.items()):
        case [(-1.0, larger), (1.0, smaller)] if limit == 0:
            return f"(<= Y_{smaller} Y_{larger})"
        case [(1.0, i)]:
            return f"(<= Y_{i} {_number(limit)})"
        case [(-1.0, i)]:
            return f"(>= Y_{i} {_number(0.0 - limit)})"
    terms = [f"(* {_number(f)} Y_{i})" for i, f in factors.items()]
    return f"(<= {terms[0] if len(terms) == 1 else '(+ ' + ' '.join(terms) + ')'} {_number(limit)})"


def _number(x: float) -> str:
    """The shortest decimal that is read as the same float64; exponents are no numbers of SMT-LIB."""
    text = format(Decimal(repr(x + 0.0)), "f")
    return text if "." in text else f"{text}.0"
