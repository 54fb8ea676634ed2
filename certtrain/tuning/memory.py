"""The study file: trials, what they chose and what they reached, kept through whatever ends the search."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from certtrain.errors import ConfigError
from certtrain.tuning.choosers import VIOLATIONS, make_sampler
from certtrain.tuning.settings import Settings
from certtrain.tuning.space import Space
from certtrain.tuning.storage import opened

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

# Attributes of the study and of its trials.
IDENTITY, FIGURES, RETRIES = "search", "figures", "retries"
SECONDS, REASON = "seconds", "reason"


class Memory:
    """The trials of a search; safe to call from several threads.

    One process at a time has it open. A trial that is running when it is opened was left behind by one that is gone; it
    is taken up again, with its number and its directories, so that its jobs go on where they were.

    Args:
        directory: Of the sweep; exists.
        settings: Of the search.
        space: What is chosen.

    Attributes:
        study: Optuna's view of it.
        left: Trials that an earlier process has begun and not finished, in their order.

    Raises:
        ConfigError: If the file is none, or of another search.
    """

    def __init__(self, directory: Path, settings: Settings, space: Space) -> None:
        self.settings, self.space = settings, space
        self._lock = threading.RLock()
        self.study = opened(directory, settings)
        self._identify()
        # A sampler that starts anew with the same seed would choose the same again.
        self.study.sampler = make_sampler(settings, begun=len(self.trials))
        self.left = self._of_state("RUNNING")
        self._handles: dict[int, Trial] = {}
        self._open = 0
        self._fill()

    @property
    def trials(self) -> list[FrozenTrial]:
        """All that have begun, in their order."""
        from optuna.trial import TrialState

        begun = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return self.study.get_trials(deepcopy=False, states=begun)

    @property
    def total(self) -> int:
        """Trials with a result that there will be if none fails."""
        return self._open + len(self.left) + self.count("COMPLETE") + self.count("PRUNED")

    def count(self, state: str) -> int:
        """How many trials are in a state of Optuna's."""
        return len(self._of_state(state))

    def numbers(self, *states: str) -> set[int]:
        """Of the trials in these states."""
        return {trial.number for state in states for trial in self._of_state(state)}

    def next(self) -> FrozenTrial | None:
        """A trial that is now running: one that was left behind, or a new one; None if there are to be no more."""
        with self._lock:
            if self.left:
                return self._complete_choice(self.left.pop(0))
            if self._open <= 0:
                return None
            self._open -= 1
            trial = self.study.ask()
            self._handles[trial.number] = trial
            return self._complete_choice(self._frozen(trial.number))

    def reported(self, number: int, step: int, value: float) -> bool:
        """Notes a figure of a running trial, and says whether the trial is to be pruned.

        Args:
            number: Of the trial.
            step: When: epochs behind it.
            value: Of the one objective.
        """
        with self._lock:
            trial = self._running(number)
            if step in self._frozen(number).intermediate_values:
                return False  # of an earlier process, which has decided
            trial.report(value, step)
            return trial.should_prune()

    def told(self, number: int, figures: Mapping[str, float], seconds: float | None) -> None:
        """Notes what a trial has reached.

        Args:
            number: Of the trial.
            figures: By key; those of all objectives and constraints.
            seconds: Wall-clock time of its jobs together.
        """
        with self._lock:
            trial = self._running(number)
            violations = [c.violation(figures[c.key]) for c in self.settings.constraints]
            trial.set_user_attr(FIGURES, dict(figures))
            trial.set_user_attr(VIOLATIONS, violations)
            trial.set_user_attr(SECONDS, seconds)
            if not hasattr(trial, "set_constraint"):  # Optuna 4, where a sampler that knows none sets none
                trial.storage.set_trial_system_attr(trial._trial_id, "constraints", violations)
            else:
                for constraint, violation in zip(self.settings.constraints, violations, strict=True):
                    trial.set_constraint(str(constraint), violation)
            self.study.tell(number, [figures[objective.key] for objective in self.settings.objectives])

    def ended_without(self, number: int, pruned: bool, reason: str, seconds: float | None) -> None:
        """Notes that a trial was pruned, or failed.

        Args:
            number: Of the trial.
            pruned: Which of both.
            reason: In words.
            seconds: As in `told`.
        """
        from optuna.trial import TrialState

        with self._lock:
            trial = self._running(number)
            trial.set_user_attr(REASON, reason)
            trial.set_user_attr(SECONDS, seconds)
            self.study.tell(number, state=TrialState.PRUNED if pruned else TrialState.FAIL)

    def best(self) -> list[FrozenTrial]:
        """The trials that no other one is better than in everything, among those that keep all constraints."""
        return self.study.best_trials

    def _identify(self) -> None:
        """Writes what this search is into a new study; refuses one of another search."""
        own = identity(self.settings, self.space)
        known = self.study.user_attrs.get(IDENTITY)
        if known is None:
            self.study.set_user_attr(IDENTITY, own)
        else:
            check_same(known, own)

    def _fill(self) -> None:
        """Queues what is not chosen but known: the whole grid, and what failed before."""
        if self.settings.enumerates:
            for values in self.space.grid():
                self.study.enqueue_trial(values, skip_if_exists=True)
        again = {trial.user_attrs.get(RETRIES) for trial in self.study.get_trials(deepcopy=False)}
        for trial in self._of_state("FAIL"):
            if trial.number not in again:
                self.study.enqueue_trial(trial.params, user_attrs={RETRIES: trial.number})
        waiting = len(self._of_state("WAITING"))
        wanted = self.settings.n_trials
        counted = len(self.left) + len(self._of_state("COMPLETE")) + len(self._of_state("PRUNED"))
        self._open = waiting if wanted is None else max(0, wanted - counted)
        if self.settings.enumerates:
            self._open = min(self._open, waiting)

    def _complete_choice(self, trial: FrozenTrial) -> FrozenTrial:
        """Chooses every value that is not chosen yet: all of a new trial, the rest where a kill came in between."""
        running = self._running(trial.number)
        for parameter in self.space.parameters:
            parameter.suggest(running)
        return self._frozen(trial.number)

    def _of_state(self, name: str) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=False, states=(TrialState[name],))

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _running(self, number: int) -> Trial:
        """Optuna's handle of a trial; one that another process has begun gets its own."""
        from optuna.trial import Trial

        if number not in self._handles:
            self._handles[number] = Trial(self.study, self._frozen(number)._trial_id)
        return self._handles[number]


def identity(settings: Settings, space: Space) -> dict[str, Any]:
    """What makes two searches the same, as JSON has it: what is searched over, and for what."""
    own = {
        **space.described(),
        "objectives": [str(objective) for objective in settings.objectives],
        "constraints": [str(constraint) for constraint in settings.constraints],
    }
    found: dict[str, Any] = json.loads(json.dumps(own))
    return found


def check_same(known: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuses to go on with another search.

    Raises:
        ConfigError: One line about the first difference.
    """
    for key in own:
        if known.get(key) != own[key]:
            raise ConfigError(
                f"hydra.sweep.dir holds another search ({key} is {_words(known.get(key))} there, {_words(own[key])} "
                "here): choose another hydra.sweep.dir"
            )


def _words(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:120]}..."
