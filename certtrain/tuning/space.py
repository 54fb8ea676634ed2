"""What a search may choose, from what was typed: intervals, ranges and lists become Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from certtrain.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Value = str | int | float | bool | None
LOG = "log"


@dataclass(frozen=True)
class Parameter:
    """One key that is searched over.

    Attributes:
        key: As it is typed, a + in front of it included.
        low: Smallest value; None for a list of choices.
        high: Largest value.
        step: Distance between neighbouring values; None where there is none.
        log: Whether orders of magnitude are equally likely.
        choices: Text of an override -> value; empty for numbers between low and high.
    """

    key: str
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def distribution(self) -> BaseDistribution:
        """For Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.low is None or self.high is None:
            return CategoricalDistribution(self.choices)
        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def suggest(self, trial: Trial) -> None:
        """Has a value chosen; one that was chosen before stays."""
        if self.low is None or self.high is None:
            trial.suggest_categorical(self.key, self.choices)
        elif self.is_whole:
            trial.suggest_int(self.key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        else:
            trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def override(self, value: Any) -> str:
        """What the command line of a job says."""
        if self.choices:
            return f"{self.key}={'null' if value is None else value}"
        # Sums of steps are off in their last digits.
        return f"{self.key}={value:.12g}" if self.step is not None else f"{self.key}={value!r}"

    def values(self) -> list[Value]:
        """All of them.

        Raises:
            ConfigError: If there is no end of them.
        """
        if self.low is None or self.high is None:
            return list(self.choices)
        if self.step is None:
            raise ConfigError(f"hydra/sweeper/sampler=grid: {self.key} is an interval; a grid takes lists and ranges")
        count = round((self.high - self.low) / self.step) + 1
        return [self.low + number * self.step for number in range(count)]

    def described(self) -> dict[str, Any]:
        """For the record."""
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "step": self.step, "log": self.log}


@dataclass(frozen=True)
class Space:
    """What the jobs of a search are made of.

    Attributes:
        fixed: Overrides that all jobs have.
        parameters: What is chosen for a trial.
        repetitions: Overrides of each job of a trial: one tuple, empty, where nothing is repeated.
    """

    fixed: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    repetitions: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(overrides: Sequence[Override], repeat: Sequence[str]) -> Space:
        """Sorts overrides.

        Args:
            overrides: Of the task, parsed.
            repeat: Keys whose values are repetitions.

        Raises:
            ConfigError: One line about one that cannot be searched over.
        """
        fixed, parameters, repeated = [], list[Parameter](), list[list[str]]()
        for override in overrides:
            if not override.is_sweep_override():
                fixed.append(str(override.input_line))
            elif override.get_key_element() in repeat:
                repeated.append(_repetitions(override))
            else:
                parameters.append(_parameter(override))
        if not parameters:
            raise ConfigError("hydra/sweeper=optuna: nothing to search over: give a key several values, or an interval")
        keys = [parameter.key for parameter in parameters]
        if double := next((key for key in keys if keys.count(key) > 1), None):
            raise ConfigError(f"hydra/sweeper=optuna: {double} stands there twice")
        return Space(tuple(fixed), tuple(parameters), tuple(product(*repeated)))

    def jobs(self, values: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """The overrides of every job of a trial.

        Args:
            values: Key -> what was chosen.
        """
        chosen = tuple(parameter.override(values[parameter.key]) for parameter in self.parameters)
        return [(*self.fixed, *chosen, *own) for own in self.repetitions]

    def grid(self) -> list[dict[str, Any]]:
        """Every combination.

        Raises:
            ConfigError: If a key has no end of values.
        """
        keys = [parameter.key for parameter in self.parameters]
        return [dict(zip(keys, row, strict=True)) for row in product(*(p.values() for p in self.parameters))]

    def described(self) -> dict[str, Any]:
        """For the record: what makes two searches the same."""
        return {
            "fixed": list(self.fixed),
            "space": {parameter.key: parameter.described() for parameter in self.parameters},
            "repetitions": [list(own) for own in self.repetitions],
        }


def _repetitions(override: Override) -> list[str]:
    if not override.is_discrete_sweep():
        raise ConfigError(f"'{override.input_line}': what is repeated inside a trial is a list of values")
    return [f"{override.get_key_element()}={text}" for text in override.sweep_string_iterator()]


def _parameter(override: Override) -> Parameter:
    key, line, value = override.get_key_element(), override.input_line, override.value()
    tags: set[str] = getattr(value, "tags", set())
    if others := sorted(tags - {LOG}):
        raise ConfigError(f"'{line}': unknown tag {others[0]}: the one tag is log, as in tag(log,interval(1e-3,1))")
    if isinstance(value, IntervalSweep):
        return _interval(key, line, value)
    if isinstance(value, RangeSweep):
        if LOG in value.tags:
            raise ConfigError(f"'{line}': a range has no logarithm: write tag(log,interval(...))")
        if (number := _range(key, [float(v) for v in value.range()], value)) is not None:
            return number
    elif LOG in tags:
        raise ConfigError(f"'{line}': tag log belongs to an interval, as in tag(log,interval(1e-3,1))")
    return Parameter(key, choices=tuple(_plain(own) for own in override.sweep_iterator(_text)))


def _interval(key: str, line: str | None, value: IntervalSweep) -> Parameter:
    low, high = value.start, value.end
    if low is None or high is None or not low < high:
        raise ConfigError(f"'{line}': an interval goes from a smaller number to a larger one")
    if LOG in value.tags and low <= 0:
        raise ConfigError(f"'{line}': tag log needs an interval above 0")
    whole = isinstance(low, int) and isinstance(high, int)
    return Parameter(key, low, high, step=1 if whole and LOG not in value.tags else None, log=LOG in value.tags)


def _range(key: str, numbers: list[float], value: RangeSweep) -> Parameter | None:
    """A range as numbers in order; None where it has fewer than two."""
    if len(numbers) < 2:
        return None
    ends, step = (min(numbers), max(numbers)), abs(float(value.step))
    if all(isinstance(part, int) for part in (value.start, value.stop, value.step)):
        return Parameter(key, int(ends[0]), int(ends[1]), int(step))
    return Parameter(key, *ends, step)


def _text(value: Any) -> Any:
    """Numbers and switches as they are, everything else as it is written in an override."""
    return value if isinstance(value, (int, float)) or value is None else Override._get_value_element_as_str(value)


def _plain(value: Any) -> Value:
    assert value is None or isinstance(value, (str, int, float))
    return value
