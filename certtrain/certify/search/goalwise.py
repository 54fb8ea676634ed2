"""One goal after the other, each on a box that is narrowed for it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from certtrain.certify.search.narrowing import Narrowing
from certtrain.certify.search.root import Root
from certtrain.certify.search.search import Effort, Ending, Outcome, Search, lowest
from certtrain.deadline import OutOfTime, until

# Subdomains of all goals together that are examined first: what they settle needs no narrowing.
FIRST = 64
# Seconds of a goal's first turn; each next one is twice as long.
TURN_S = 1.0
# What is known of a goal that was refuted where its box is narrowed: nowhere are its forms all <= 0, not by how much.
BARELY = torch.finfo(torch.float32).tiny
# Endings of single goals, from that which decides what is said of all.
ORDER: Sequence[Ending] = ("counterexample", "time", "memory", "exhausted", "closed")


@dataclass(frozen=True)
class Goalwise:
    """Refutes all goals, or meets a counterexample of one.

    Attributes:
        root: The box.
        deadline: A moment of `time.perf_counter()`.
        effort: See `Search`.
        memory: See `Search`; all goals share it.
        narrowing: How boxes are narrowed.
    """

    root: Root
    deadline: float = math.inf
    effort: Effort = Effort()  # noqa: RUF009  (frozen)
    memory: int = 1 << 30
    narrowing: Narrowing = Narrowing()  # noqa: RUF009  (frozen)

    def run(self) -> Outcome:
        """The answer."""
        together = Search(self.root, self.deadline, self.effort, self.memory)
        found = together.run(most=FIRST)
        if found is not None:
            return found
        left = together.left()
        goals = left.goal.unique().tolist()
        each = [_Goal(self, one, float(left.lower[left.goal == one].min())) for one in goals]
        _take_turns(each, self.memory)
        ending = min((goal.ending for goal in each), key=ORDER.index)
        point = next((goal.found.counterexample for goal in each if goal.found and goal.ending == ending), None)
        examined = together.examined + sum(goal.examined for goal in each)
        return Outcome(ending, lowest(together.lower, *(goal.lower for goal in each)), point, examined)


class _Goal:
    """One goal: narrowed on its first turn, searched on all.

    Args:
        of: What it is a goal of.
        goal: Its number.
        lower: What is known of it.
    """

    def __init__(self, of: Goalwise, goal: int, lower: float) -> None:
        self._of, self._goal, self._known = of, goal, lower
        self._search: Search | None = None
        self.found: Outcome | None = None

    @property
    def ending(self) -> Ending:
        """Of a goal that had no more turns, as if time had been over."""
        return "time" if self.found is None else self.found.ending

    @property
    def examined(self) -> int:
        """Subdomains that were bounded."""
        return 0 if self._search is None else self._search.examined

    @property
    def lower(self) -> float:
        """A bound of the goal: what is proved where the box is narrowed says nothing of other inputs but a sign."""
        if self.ending == "closed":
            return BARELY
        found = -math.inf if self._search is None else self._search.lower
        return max(self._known, min(found, 0.0)) if not math.isnan(found) else found

    def go_on(self, pause: float, memory: int) -> None:
        """Searches until it is answered, a moment of `time.perf_counter()` has passed, or memory is over.

        Args:
            pause: The moment.
            memory: Bytes that it may take.
        """
        of = self._of
        if self._search is None:
            try:
                with until(of.deadline):
                    narrowed = of.narrowing.narrow(of.root, self._goal)
            except OutOfTime:
                self.found = Outcome("time", self._known, None, 0)
                return
            if narrowed is None:
                self.found = Outcome("closed", BARELY, None, 0)
                return
            goals = torch.tensor([self._goal])
            self._search = Search(narrowed, of.deadline, of.effort, of.memory, goals)
        self.found = self._search.run(pause, memory=memory)


def _take_turns(goals: Sequence[_Goal], memory: int) -> None:
    """Until all are answered, or one so that the others no longer matter."""
    waiting, length = list(goals), TURN_S
    while waiting:
        for goal in list(waiting):
            alone = len(waiting) == 1
            goal.go_on(math.inf if alone else time.perf_counter() + length, memory // len(waiting))
            if goal.found is None:
                continue
            if goal.ending in ("counterexample", "time"):
                return
            if goal.ending != "memory" or alone:
                waiting.remove(goal)
        if all(goal.ending == "memory" for goal in waiting):
            return
        length *= 2
