"""Properties out of VNN-LIB files, version 1.0 as VNN-COMP writes them: declarations and assertions."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from math import inf, prod

import numpy as np
import torch

from certtrain.bounds import Box
from certtrain.certify.properties.formula import Clause, Reader, Variable, conjunction, variable_of
from certtrain.certify.properties.property import Conjunction, Property, Region
from certtrain.certify.properties.tokens import Form, Place, Word, parse, shown
from certtrain.errors import ConfigError, one_line

_IGNORED = ("set-logic", "set-info", "set-option", "check-sat", "get-model", "get-value", "exit")


def read_vnnlib(path: str | os.PathLike[str], input_shape: Sequence[int] | None = None) -> Property:
    """Reads a property: what the file asserts is unsafe.

    Inputs are `X_0`, `X_1`, ..., each with a lower and an upper bound in every alternative; outputs are `Y_0`, ... in
    linear constraints. Strict comparisons are taken for the closed ones. Alternatives without an input (an empty box),
    or with a false constraint of constants, are left out; alternatives on the same box are one region.

    Args:
        path: The file; its name ends in .gz if it is compressed.
        input_shape: Shape of one input of the network; flat, where it is not given.

    Raises:
        ConfigError: If the file cannot be read, is malformed (with the line), leaves an input unbounded, or has another
            number of inputs than the shape.
    """
    place = Place(os.fspath(path))
    declared: dict[Variable, int] = {}
    reader, assertions, last = Reader(place, declared), [], 1
    for form in parse(_read(place), place):
        last = form.line
        match form.items:
            case [Word("declare-const"), Word(name), Word("Real")]:
                _declare(declared, name, place, form)
            case [Word("declare-fun"), Word(name), Form([]), Word("Real")]:
                _declare(declared, name, place, form)
            case [Word("declare-const" | "declare-fun"), *_]:
                raise place.fault(form.line, f"{shown(form)}: a variable is declared as (declare-const X_0 Real)")
            case [Word("assert"), expression]:
                assertions.append(reader.clauses(expression))
            case [Word(command), *_] if command in _IGNORED:
                pass
            case _:
                raise place.fault(form.line, f"{shown(form)}: only declare-const, declare-fun and assert of one thing")
    inputs, outputs = (_count(declared, kind, place) for kind in "XY")
    shape = _shape(input_shape, inputs, place)
    if not assertions:
        raise ConfigError(f"{place.path}: nothing is asserted")
    return _property(conjunction(assertions, place, last), shape, inputs, outputs, place)


def _read(place: Place) -> str:
    path = place.path
    try:
        if path.endswith(".gz"):
            with gzip.open(path, "rb") as file:
                return file.read().decode("utf-8")
        with open(path, encoding="utf-8") as text:
            return text.read()
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text") from error


def _declare(declared: dict[Variable, int], name: str, place: Place, form: Form) -> None:
    variable = variable_of(name)
    if variable is None:
        raise place.fault(form.line, f"{shown(form)}: inputs are called X_0, X_1, ..., outputs Y_0, Y_1, ...")
    if variable in declared:
        raise place.fault(form.line, f"{name} is declared in line {declared[variable]} already")
    declared[variable] = form.line


def _count(declared: dict[Variable, int], kind: str, place: Place) -> int:
    """How many variables of a kind there are; they are numbered without gaps."""
    found = {i for k, i in declared if k == kind}
    if not found:
        what = "input X_0" if kind == "X" else "output Y_0"
        raise ConfigError(f"{place.path}: no {what} is declared")
    missing = next((i for i in range(len(found)) if i not in found), None)
    if missing is not None:
        raise ConfigError(f"{place.path}: {kind}_{missing} is not declared, but {kind}_{max(found)} is")
    return len(found)


def _shape(input_shape: Sequence[int] | None, inputs: int, place: Place) -> tuple[int, ...]:
    shape = (inputs,) if input_shape is None else tuple(int(n) for n in input_shape)
    if prod(shape) != inputs:
        raise ConfigError(f"{place.path}: it declares {inputs} inputs, an input of shape {shape} has {prod(shape)}")
    return shape


def _property(clauses: list[Clause], shape: tuple[int, ...], inputs: int, outputs: int, place: Place) -> Property:
    ends: dict[bytes, np.ndarray] = {}
    unsafe: dict[bytes, list[Conjunction]] = {}
    for clause in clauses:
        box = _ends(clause, inputs, place)
        if (box[0] > box[1]).any():
            continue  # no input
        key = box.tobytes()
        ends.setdefault(key, box)
        unsafe.setdefault(key, []).append(_conjunction(clause, outputs))
    boxes = {key: torch.from_numpy(box).reshape(2, 1, *shape) for key, box in ends.items()}
    return Property(tuple(Region(Box(boxes[key][0], boxes[key][1]), tuple(found)) for key, found in unsafe.items()))


def _ends(clause: Clause, inputs: int, place: Place) -> np.ndarray:
    """Lower and upper ends, [2, inputs]."""
    box = np.array([[-inf], [inf]]).repeat(inputs, 1)
    numbers = list(clause.bounds)
    if numbers:
        box[:, numbers] = np.array([clause.bounds[i] for i in numbers]).T
    for end, name in zip(box, ("lower", "upper"), strict=True):
        if not np.isfinite(end).all():
            i = int(np.isinf(end).argmax())
            raise ConfigError(f"{place.path}: X_{i} has no {name} bound: every input needs both, in every alternative")
    return box


def _conjunction(clause: Clause, outputs: int) -> Conjunction:
    coefficients = torch.zeros((len(clause.rows), outputs), dtype=torch.float64)
    for row, (factors, _) in zip(coefficients, clause.rows, strict=True):
        row[list(factors)] = torch.tensor(list(factors.values()), dtype=torch.float64)
    return Conjunction(coefficients, torch.tensor([limit for _, limit in clause.rows], dtype=torch.float64))
