"""What an assertion says: a disjunction of clauses, each bounds of inputs and constraints of outputs.

Strict comparisons are taken for the closed ones. That makes unsafe sets larger by their boundaries, never smaller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import NoReturn

from certtrain.certify.properties.tokens import Expression, Form, Place, Word, shown

# More alternatives than any known benchmark has; beyond, a file is refused instead of filling the memory.
MOST_CLAUSES = 100_000
_VARIABLE = re.compile(r"([XY])_(\d{1,9})")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")

Variable = tuple[str, int]


@dataclass(frozen=True)
class Linear:
    """Σ factor · variable + constant."""

    factors: Mapping[Variable, float]
    constant: float

    def scaled(self, by: float) -> Linear:
        return Linear({v: by * f for v, f in self.factors.items()}, by * self.constant)

    def plus(self, other: Linear) -> Linear:
        factors = dict(self.factors)
        for variable, factor in other.factors.items():
            factors[variable] = factors.get(variable, 0.0) + factor
        return Linear(factors, self.constant + other.constant)


@dataclass(frozen=True)
class Clause:
    """Bounds of inputs, and rows Σ factor · y <= limit.

    Attributes:
        bounds: Number of an input -> lower and upper end.
        rows: Factors by number of an output, and the limit.
    """

    bounds: Mapping[int, tuple[float, float]]
    rows: tuple[tuple[Mapping[int, float], float], ...]

    def both(self, other: Clause) -> Clause:
        """What fulfils both."""
        bounds = dict(self.bounds)
        for i, (low, high) in other.bounds.items():
            lower, upper = bounds.get(i, (-inf, inf))
            bounds[i] = (max(lower, low), min(upper, high))
        return Clause(bounds, self.rows + other.rows)


TRUE = Clause({}, ())


@dataclass(frozen=True)
class Reader:
    """Reads the assertions of one file.

    Attributes:
        place: The file.
        declared: Variable -> line of its declaration.
    """

    place: Place
    declared: Mapping[Variable, int]

    def clauses(self, expression: Expression) -> list[Clause]:
        """The alternatives of an assertion; none if it says something false.

        Raises:
            ConfigError: If it says something else, with the line.
        """
        match expression:
            case Form([Word("and"), *parts]):
                return conjunction([self.clauses(part) for part in parts], self.place, expression.line)
            case Form([Word("or"), *parts]):
                found = [clause for part in parts for clause in self.clauses(part)]
                return self._bounded(found, expression.line)
            case Form([Word("<=" | "<"), left, right]):
                return self._at_most(left, right, expression)
            case Form([Word(">=" | ">"), left, right]):
                return self._at_most(right, left, expression)
            case Form([Word("="), left, right]):
                sides = [self._at_most(left, right, expression), self._at_most(right, left, expression)]
                return conjunction(sides, self.place, expression.line)
            case Form([Word("<=" | "<" | ">=" | ">" | "="), *parts]):
                self._fail(expression, f"a comparison has two sides, this one {len(parts)}")
            case Word("true"):
                return [TRUE]
            case Word("false"):
                return []
        self._fail(expression, "only and, or, <=, >=, <, > and = are understood where something is asserted")

    def _bounded(self, clauses: list[Clause], line: int) -> list[Clause]:
        if len(clauses) > MOST_CLAUSES:
            raise self.place.fault(line, f"more than {MOST_CLAUSES} alternatives")
        return clauses

    def _at_most(self, left: Expression, right: Expression, whole: Form) -> list[Clause]:
        """Left <= right."""
        difference = self.linear(left).plus(self.linear(right).scaled(-1.0))
        constant = difference.constant
        if not all(isfinite(x) for x in (*difference.factors.values(), constant)):
            self._fail(whole, "a number is too large")
        inputs = {i: f for (kind, i), f in difference.factors.items() if kind == "X"}
        outputs = {i: f for (kind, i), f in difference.factors.items() if kind == "Y"}
        if inputs and outputs:
            self._fail(whole, "a constraint of inputs and outputs together is not supported")
        if outputs:
            return [Clause({}, ((outputs, 0.0 - constant),))]
        if len(inputs) > 1:
            self._fail(whole, "a constraint of several inputs is not supported: inputs are boxes")
        for i, factor in inputs.items():
            if factor == 0:
                break
            end = 0.0 - constant / factor
            return [Clause({i: (-inf, end) if factor > 0 else (end, inf)}, ())]
        return [TRUE] if constant <= 0 else []

    def linear(self, expression: Expression) -> Linear:
        """A sum of variables with factors.

        Raises:
            ConfigError: If it is none, with the line.
        """
        if isinstance(expression, Word):
            return self._term(expression)
        match expression.items:
            case [Word("+"), first, *others]:
                return self._sum(self.linear(first), others, 1.0)
            case [Word("-"), only]:
                return self.linear(only).scaled(-1.0)
            case [Word("-"), first, *others]:
                return self._sum(self.linear(first), others, -1.0)
            case [Word("*"), first, *others]:
                product = self.linear(first)
                for other in map(self.linear, others):
                    if product.factors and other.factors:
                        self._fail(expression, "a product of variables is not linear")
                    by, of = (other, product) if product.factors else (product, other)
                    product = of.scaled(by.constant)
                return product
            case [Word("/"), left, right]:
                divisor = self.linear(right)
                if divisor.factors or divisor.constant == 0:
                    self._fail(expression, "only division by a constant other than zero is linear")
                over = self.linear(left)
                factors = {v: f / divisor.constant for v, f in over.factors.items()}
                return Linear(factors, over.constant / divisor.constant)
        self._fail(expression, "only sums, differences and multiples of variables and numbers are understood here")

    def _sum(self, total: Linear, others: Iterable[Expression], sign: float) -> Linear:
        for other in others:
            total = total.plus(self.linear(other).scaled(sign))
        return total

    def _term(self, word: Word) -> Linear:
        if _NUMBER.fullmatch(word.text):
            return Linear({}, float(word.text))
        variable = variable_of(word.text)
        if variable is None:
            self._fail(word, "neither a number nor a variable X_i or Y_i")
        if variable not in self.declared:
            self._fail(word, "it is not declared above")
        return Linear({variable: 1.0}, 0.0)

    def _fail(self, expression: Expression, reason: str) -> NoReturn:
        raise self.place.fault(expression.line, f"{shown(expression)}: {reason}")


def variable_of(text: str) -> Variable | None:
    """X_3 as ("X", 3); None for other words."""
    match = _VARIABLE.fullmatch(text)
    return (match[1], int(match[2])) if match else None


def conjunction(parts: list[list[Clause]], place: Place, line: int) -> list[Clause]:
    """Alternatives that fulfil one of each part.

    Raises:
        ConfigError: If they are too many.
    """
    # Parts without alternatives are nearly all of a file: each of them once, not once for every alternative.
    common, choices = _merged(part[0] for part in parts if len(part) == 1), [part for part in parts if len(part) != 1]
    found = [common]
    for choice in choices:
        if len(found) * len(choice) > MOST_CLAUSES:
            raise place.fault(line, f"more than {MOST_CLAUSES} alternatives once and is multiplied out over or")
        found = [one.both(other) for one in found for other in choice]
    return found


def _merged(clauses: Iterable[Clause]) -> Clause:
    bounds: dict[int, tuple[float, float]] = {}
    rows: list[tuple[Mapping[int, float], float]] = []
    for clause in clauses:
        for i, (low, high) in clause.bounds.items():
            lower, upper = bounds.get(i, (-inf, inf))
            bounds[i] = (max(lower, low), min(upper, high))
        rows.extend(clause.rows)
    return Clause(bounds, tuple(rows))
