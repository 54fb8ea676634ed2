"""One goal after the other, each on a box that is narrowed for it."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch

from certtrain.certify.search.enveloping import Enveloping
from certtrain.certify.search.narrowing import Narrowed, Narrowing
from certtrain.certify.search.root import Root
from certtrain.certify.search.search import BARELY, Effort, Ending, Outcome, Search, lowest
from certtrain.certify.search.tree import Tree
from certtrain.deadline import OutOfTime, until

# Subdomains of all goals together that are examined first: what they settle needs no narrowing.
FIRST = 64
# Seconds of a goal's first turn; each next one is twice as long.
TURN_S = 1.0
# A way that needs more than so many times what time is left is taken for lost, as things go.
HOPE = 16
# Share of a goal's turns that its tree has, by how much more hope there is for it than for the search.
SHARES = {2: 7 / 8, 1: 7 / 8, 0: 1 / 2, -1: 1 / 8, -2: 1 / 8}
# Envelopes are fitted anew where narrowing leaves less than this of the width of all that is undecided.
NARROWER = 0.9
# Of a goal's memory, what envelopes may take, and the tree's of what is left.
ENVELOPES, TREE_MEMORY = 1 / 4, 1 / 2
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
        enveloping: How envelopes are fitted.
    """

    root: Root
    deadline: float = math.inf
    effort: Effort = Effort()  # noqa: RUF009  (frozen)
    memory: int = 1 << 30
    narrowing: Narrowing = Narrowing()  # noqa: RUF009  (frozen)
    enveloping: Enveloping = Enveloping()  # noqa: RUF009  (frozen)

    def run(self) -> Outcome:
        """The answer."""
        together = Search(self.root, self.deadline, self.effort, self.memory)
        found = together.run(most=FIRST)
        if found is not None:
            return found
        left = together.left()
        bounds = {goal: float(left.lower[left.goal == goal].min()) for goal in left.goal.unique().tolist()}
        # The worst first: if there is a counterexample, it is likely to be one of these.
        each = [_Goal(self, goal, bounds[goal]) for goal in sorted(bounds, key=bounds.__getitem__)]
        try:
            _take_turns(each, self.memory - self.enveloping.shared(self.root, self.memory))
            return self._outcome(together, each)
        finally:
            for goal in each:
                goal.end()

    def _outcome(self, together: Search, each: Sequence[_Goal]) -> Outcome:
        # A part that was stuck is none of those that are left.
        before: list[Ending] = ["exhausted"] if together.is_stuck else []
        ending = min([*before, *(goal.ending for goal in each)], key=ORDER.index)
        point = next((goal.found.counterexample for goal in each if goal.found and goal.ending == ending), None)
        examined = together.examined + sum(goal.examined for goal in each)
        return Outcome(ending, lowest(together.lower, *(goal.lower for goal in each)), point, examined)


class _Goal:
    """One goal: envelopes are fitted, its box is narrowed; then a search and a tree share turns until one ends.

    Args:
        of: What it is a goal of.
        goal: Its number.
        lower: What is known of it.
    """

    def __init__(self, of: Goalwise, goal: int, lower: float) -> None:
        self._of, self._goal, self._known = of, goal, min(lower, 0.0)
        self._stages, self._memory = self._begin(), of.memory
        self._search: Search | None = None
        self._tree: Tree | None = None
        # Bytes of envelopes.
        self._kept = 0
        self._examined = 0
        # What is known once it is closed: where the box was narrowed before, its sign alone.
        self._margin = BARELY
        self.found: Outcome | None = None

    @property
    def ending(self) -> Ending:
        """Of a goal that had no more turns, as if time had been over."""
        return "time" if self.found is None else self.found.ending

    @property
    def examined(self) -> int:
        """Subdomains that were bounded."""
        return self._examined + sum(way.examined for way in (self._search, self._tree) if way is not None)

    @property
    def lower(self) -> float:
        """A bound of the goal: what is proved where the box is narrowed says nothing of other inputs but a sign."""
        if self.ending == "closed":
            return self._margin
        found = -math.inf if self._search is None else self._search.lower
        return max(self._known, min(found, 0.0)) if not math.isnan(found) else found

    def go_on(self, length: float, memory: int) -> None:
        """Searches until it is answered, time has passed, or memory is over.

        Args:
            length: Seconds.
            memory: Bytes that it may take.
        """
        end, self._memory, self.found = time.perf_counter() + length, memory, None
        try:
            with until(self._of.deadline):
                while self.found is None and time.perf_counter() < end:
                    self.found = next(self._stages, None) if self._search is None else self._turn(end)
        except OutOfTime:
            self.found = Outcome("time", self._known, None, 0)
        if self.found is not None and self.ending != "memory":
            # Others have the memory now.
            self._known, self._examined = self.lower, self.examined
            self.end()

    def end(self) -> None:
        """Gives up all that is open: what has begun refers to this goal, and would be kept until it is collected."""
        self._search = self._tree = None
        self._stages.close()

    def _begin(self) -> Generator[Outcome | None, None, None]:
        """An answer, or None, after each of the stages; the last one makes a search."""
        of = self._of
        whole = of.enveloping.fit(of.root, self._goal, self._known, of.memory)
        if whole is not None and whole.margin > 0:
            self._margin = whole.margin
            yield Outcome("closed", whole.margin, None, 0)
            return
        if whole is not None and whole.nbytes > self._memory * ENVELOPES:
            whole = None
        self._kept = 0 if whole is None else whole.nbytes
        yield None
        narrowed = of.narrowing.narrow(start := Narrowed.of(of.root, self._goal))
        if narrowed is None:
            yield Outcome("closed", BARELY, None, 0)
            return
        yield None
        if whole is not None and narrowed.width <= NARROWER * start.width:
            lower, whole = narrowed.bounded(of.narrowing.steps)[0], None
            if 0 < lower < math.inf:
                yield Outcome("closed", BARELY, None, 0)
                return
            fitted = of.enveloping.fit(narrowed.root, self._goal, lower, of.memory)
        else:
            fitted = None if whole is None else whole.on(narrowed.root)
        if fitted is not None and fitted.margin > 0:
            yield Outcome("closed", BARELY, None, 0)
            return
        root, choice = (narrowed.root, None) if fitted is None else (fitted.root, fitted.choice)
        self._kept = 0 if fitted is None else fitted.nbytes
        if of.narrowing.rounds:
            self._tree = Tree(narrowed, of.narrowing, of.effort, of.deadline, of.memory)
        self._search = Search(root, of.deadline, of.effort, of.memory, torch.tensor([self._goal]), choice)

    def _turn(self, end: float) -> Outcome | None:
        assert self._search is not None
        start, memory = time.perf_counter(), self._memory - self._kept
        length, of_tree = end - start, 0 if self._tree is None else int(memory * TREE_MEMORY)
        found = self._search.run(start + length * (1 - self._share(start)), memory=memory - of_tree)
        if self._tree is None or (found is not None and found.ending not in ("memory", "exhausted")):
            return found
        now = time.perf_counter()
        other = self._tree.run(now + length * self._share(now), of_tree)
        if other is None:
            # Nor does it end with a search that has no memory left, or nothing left to split.
            return None
        if other.ending == "exhausted":
            self._tree = None
            # With all of the memory a search that has no more of its half goes on.
            return None if found is not None and found.ending == "memory" else found
        return other

    def _share(self, now: float) -> float:
        """Of a turn, the tree's."""
        if self._tree is None or self._search is None:
            return 0.0
        left = self._of.deadline - now
        ways = [_hope(way.seconds_left, left) for way in (self._tree, self._search)]
        return SHARES[ways[0] - ways[1]]


def _hope(needed: float | None, left: float) -> int:
    """Of a way that needs so many seconds: 1 where they are there, 0 where that is unknown or not yet lost, else -1."""
    if needed is None:
        return 0
    return 1 if needed <= left else 0 if needed <= HOPE * left else -1


def _take_turns(goals: Sequence[_Goal], memory: int) -> None:
    """Until all are answered, or one so that the others no longer matter."""
    waiting, length = list(goals), TURN_S
    while waiting:
        for goal in list(waiting):
            goal.go_on(length, memory // len(waiting))
            if goal.found is None:
                continue
            if goal.ending in ("counterexample", "time"):
                return
            if goal.ending != "memory" or len(waiting) == 1:
                waiting.remove(goal)
        if all(goal.ending == "memory" for goal in waiting):
            return
        length *= 2
