"""The search itself."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from certtrain.bounds.optimised.choice import Choice
from certtrain.certify.search import leaves, points
from certtrain.certify.search.bounding import bound
from certtrain.certify.search.branching import NOT_SPLIT, Probing, candidates, children, choose
from certtrain.certify.search.pool import Pool
from certtrain.certify.search.root import Root
from certtrain.certify.search.subdomains import Subdomains, Waiting
from certtrain.certify.soundness import SoundnessError
from certtrain.deadline import OutOfTime, check_deadline, until

# What is known of a goal that was refuted where its box is narrowed: nowhere are its forms all <= 0, not by how much.
BARELY = torch.finfo(torch.float32).tiny
# closed: everything is proved. exhausted: nothing is left that could be split.
Ending = Literal["closed", "counterexample", "exhausted", "time", "memory"]


@dataclass(frozen=True)
class Effort:
    """How much is done where.

    Attributes:
        batch: Subdomains that are split at a time, fewer where the rows of their children would not fit into memory.
        rounds: Steps of the children's optimisation; after each round those that are closed are left out.
        candidates: Columns that are tried before one is split; more while there are few subdomains.
        descents: Corners, of the lowest bounds, from which a counterexample is searched after each batch.
        steps: Of each such search.
    """

    batch: int = 256
    rounds: tuple[int, ...] = (3, 3, 3)
    candidates: int = 4
    descents: int = 16
    steps: int = 10

    def probing(self, count: int) -> Probing:
        """How splits are tried where so many subdomains are open."""
        return Probing.among(count, self.candidates)


@dataclass(frozen=True)
class Outcome:
    """What a search came to.

    Attributes:
        ending: Why it ended.
        lower: A bound of every goal: positive exactly where all are refuted; NaN where a bound is.
        counterexample: A point, [*input_shape], that is unsafe where it was evaluated; None where none was met.
        examined: Subdomains that were bounded.

    Raises:
        SoundnessError: If everything is said to be proved, and a bound says otherwise.
    """

    ending: Ending
    lower: float
    counterexample: Tensor | None
    examined: int

    def __post_init__(self) -> None:
        if self.ending != "closed":
            # What was refuted has positive bounds, and float32 may have one of what is open: neither is one of all.
            object.__setattr__(self, "lower", lowest(self.lower, 0.0))
        elif not self.lower > 0:
            raise SoundnessError(f"a search said that everything is proved, with a bound of {self.lower:g}")


class Search:
    """Splits until everything is closed, a counterexample is met, or time or memory is over.

    Args:
        root: What is searched.
        effort: How.
        deadline: A moment of `time.perf_counter()`.
        memory: Bytes that open subdomains may take, and as many again those that are being bounded.
        goals: Which are to be refuted, int64; None for all.
        start: What their rows choose first on the whole box; None for lines of least area.
    """

    def __init__(
        self,
        root: Root,
        deadline: float = math.inf,
        effort: Effort = Effort(),
        memory: int = 1 << 30,
        goals: Tensor | None = None,
        start: Choice | None = None,
    ) -> None:
        self._start = start
        self._root, self._effort, self._deadline, self._memory = root, effort, deadline, memory
        self._pool: Pool[Waiting] = Pool()
        self._batch = max(1, min(effort.batch, memory // (root.bytes_per_row * 2 * effort.candidates)))
        self._goals = torch.arange(len(root.single.goals)) if goals is None else goals
        # Lowest bounds: of what is closed, of what nothing can be done for, of what is being split.
        self._closed = self._stuck = math.inf
        self._taken = -math.inf
        self._lost = False
        self._examined, self._seconds = 0, 0.0
        self._point: Tensor | None = None
        # Parts were taken out of it, or lost with the time: it can answer nothing any more.
        self._over = False
        # The whole box as it was first bounded, a part for every goal that was open then.
        self.begun: Subdomains | None = None

    def run(self, pause: float = math.inf, most: int | float = math.inf, memory: int | None = None) -> Outcome | None:
        """The answer; or None where there is none yet. Another call goes on, after "memory", too.

        Args:
            pause: A moment of `time.perf_counter()`, after which it takes nothing new on.
            most: Subdomains that are examined, after which neither.
            memory: Bytes that open subdomains may take this time; None for what they were given at first.
        """
        assert not self._over, "of what was taken out nothing would be said"
        ending: Ending | None
        start = time.perf_counter()
        try:
            with until(self._deadline):
                ending = self._split(pause, most, self._memory if memory is None else memory)
        except OutOfTime:
            ending, self._over = "time", True
        self._seconds += time.perf_counter() - start
        return None if ending is None else Outcome(ending, self.lower, self._point, self._examined)

    @property
    def examined(self) -> int:
        """Subdomains that were bounded."""
        return self._examined

    @property
    def seconds_left(self) -> float | None:
        """What it needs to its end, if bounds rise with every doubling of parts as they did so far.

        None where nothing was split.
        """
        if self.begun is None or self._examined <= len(self.begun):
            return None
        gain = (self.lower - float(self.begun.lower.min())) / math.log2(self._examined / len(self.begun))
        # Beyond some doublings it is nothing that anybody would wait for.
        doublings = -self.lower / gain if gain > 0 else math.inf
        return self._seconds * (2**doublings - 1) if doublings < 64 else math.inf

    @property
    def is_stuck(self) -> bool:
        """Whether there is a part for which nothing can be done: what is left cannot close all, then."""
        return self._stuck != math.inf

    @property
    def lower(self) -> float:
        """A bound of everything; of what is open it is float32's, which proves nothing."""
        left = lowest(self._stuck, self._taken, self._pool.worst)
        return self._closed if left == math.inf else lowest(self._closed, left, 0.0)

    def left(self) -> Waiting:
        """Takes out all that is open: it is no longer searched."""
        self._over = True
        return self._pool.take(len(self._pool))

    def _split(self, pause: float, most: int | float, memory: int) -> Ending | None:
        if self._examined == 0:
            self._examine(self._whole())
            if len(self._pool):
                begun = self._pool.take(len(self._pool))
                self._pool.add(begun)
                self.begun = begun.taken_up(self._root)
        while True:
            self._taken = math.inf
            if self._point is not None:
                return "counterexample"
            if self._lost or math.isnan(self._stuck) or not len(self._pool):
                return "exhausted" if self.is_stuck else "closed"
            check_deadline()
            if self._pool.nbytes > memory:
                return "memory"
            if self._examined >= most or time.perf_counter() > pause:
                return None
            probing = self._effort.probing(len(self._pool))
            parents = self._pool.take(self._batch).taken_up(self._root)
            self._taken = float(parents.lower.min())
            self._examine(children(parents, choose(self._root, parents, probing, self._effort.candidates)))

    def _whole(self) -> Subdomains:
        """One subdomain for every goal: the whole box."""
        root, count = self._root, len(self._goals)
        decisions = root.decided.expand(count, -1).contiguous()
        unknown, none = root.single.lower.new_full((count,), -math.inf), torch.zeros((count, 0), dtype=torch.int64)
        choice = root.first_choice(count) if self._start is None else self._start
        return Subdomains(decisions, choice, unknown, self._goals, none, none.float())

    def _examine(self, fresh: Subdomains) -> None:
        """Bounds subdomains; keeps what stays open, decides what cannot be split."""
        root, effort = self._root, self._effort
        found = bound(root, fresh.decisions, fresh.goal, fresh.choice, effort.rounds)
        self._examined += len(fresh)
        if len(found.closed):
            self._closed = min(self._closed, float(found.closed.min()))
        if bool(found.lower.isnan().any()):
            self._stuck = math.nan
            return
        if not len(found.open):
            return
        decisions, goal = fresh.decisions[found.open], fresh.goal[found.open]
        # As many as there ever are of each.
        promising = candidates(root, decisions, goal, found.choice, effort.probing(1).candidates)
        columns, corner = promising.columns, promising.corner
        worst = found.lower.argsort()[: effort.descents]
        self._point = points.deepest_unsafe(root, corner, goal)
        if self._point is None and effort.descents:
            self._point = points.descend(root, corner[worst], goal[worst], effort.steps)
        if self._point is None and (lost := points.lost_to_rounding(root, corner, goal)) is not None:
            self._lost, self._stuck = True, lowest(self._stuck, lost)
            return
        still = Subdomains(decisions, found.choice, found.lower, goal, columns, promising.coefficients)
        splittable = columns[:, 0] != NOT_SPLIT if columns.shape[1] else torch.zeros(len(goal), dtype=torch.bool)
        self._pool.add(still[splittable].put_away(self._root))
        self._decide(still[~splittable])

    def _decide(self, left: Subdomains) -> None:
        """Solves leaves, a few at a time, until a counterexample is met: what is left then is stuck."""
        most = leaves.together(left)
        for first in range(0, len(left), most):
            part = left[first : first + most]
            if self._point is not None:
                self._stuck = lowest(self._stuck, *part.lower.tolist())
                continue
            for number, solved in enumerate(leaves.solve(self._root, part)):
                self._take(part[number : number + 1], solved)

    def _take(self, leaf: Subdomains, solved: leaves.Leaf) -> None:
        if 0 < solved.lower < math.inf:
            self._closed = min(self._closed, solved.lower)
            return
        # An infinite bound is no number, either; as infinity it would pass for nothing being stuck.
        self._stuck = lowest(self._stuck, solved.lower if solved.lower < math.inf else math.nan)
        if self._point is None:
            self._point = points.deepest_unsafe(self._root, solved.point[None].clamp(*self._root.outer), leaf.goal)


def lowest(*bounds: float) -> float:
    """The smallest; NaN where one is."""
    return math.nan if any(map(math.isnan, bounds)) else min(bounds)
