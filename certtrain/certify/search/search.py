"""The search itself."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from certtrain.bounds.optimised.ascent import Choice
from certtrain.certify.search import leaves, points
from certtrain.certify.search.bounding import bound
from certtrain.certify.search.branching import NOT_SPLIT, candidates, children, choose
from certtrain.certify.search.pool import Pool
from certtrain.certify.search.root import Root
from certtrain.certify.search.subdomains import Subdomains

# closed: everything is proved. exhausted: nothing is left that could be split.
Ending = Literal["closed", "counterexample", "exhausted", "time", "memory"]


@dataclass(frozen=True)
class Effort:
    """How much is done where.

    Attributes:
        batch: Subdomains that are split at a time.
        rounds: Steps of the children's optimisation; after each round those that are closed are left out.
        candidates: Columns that are tried before one is split.
        descents: Corners, of the lowest bounds, from which a counterexample is searched after each batch.
        steps: Of each such search.
    """

    batch: int = 256
    rounds: tuple[int, ...] = (4, 8)
    candidates: int = 4
    descents: int = 8
    steps: int = 10


@dataclass(frozen=True)
class Outcome:
    """What a search came to.

    Attributes:
        ending: Why it ended.
        lower: A bound of every goal: positive exactly where all are refuted.
        counterexample: A point, [*input_shape], that is unsafe where it was evaluated; None where none was met.
        examined: Subdomains that were bounded.
    """

    ending: Ending
    lower: float
    counterexample: Tensor | None
    examined: int


class Search:
    """Splits until everything is closed, a counterexample is met, or time or memory is over.

    Args:
        root: What is searched.
        effort: How.
        deadline: A moment of `time.perf_counter()`.
        memory: Bytes that open subdomains may take.
    """

    def __init__(
        self,
        root: Root,
        deadline: float = math.inf,
        effort: Effort = Effort(),
        memory: int = 1 << 30,
    ) -> None:
        self._root, self._effort, self._deadline, self._memory = root, effort, deadline, memory
        self._pool: Pool[Subdomains] = Pool()
        self._closed = self._stuck = math.inf
        self._examined = 0
        self._point: Tensor | None = None

    def run(self) -> Outcome:
        """The answer."""
        fresh = self._whole()
        while True:
            self._examine(fresh)
            if self._point is not None:
                return self._outcome("counterexample")
            if not len(self._pool):
                return self._outcome("closed" if self._stuck == math.inf else "exhausted")
            if time.perf_counter() > self._deadline:
                return self._outcome("time")
            if self._pool.nbytes > self._memory:
                return self._outcome("memory")
            parents = self._pool.take(self._effort.batch)
            fresh = children(parents, choose(self._root, parents))

    def _outcome(self, ending: Ending) -> Outcome:
        lower = min(self._closed, self._stuck, self._pool.worst)
        return Outcome(ending, lower, self._point, self._examined)

    def _whole(self) -> Subdomains:
        """One subdomain for every goal: the whole box."""
        relaxed, count = self._root.single, len(self._root.single.goals)
        forms = relaxed.goals.forms.shape[1]
        weights = torch.full((count, forms), 1 / forms) if forms > 1 else None
        slopes = relaxed.lower.expand(count, -1).contiguous()
        none = torch.zeros((count, self._root.space.size), dtype=torch.int8)
        choice = Choice(slopes, torch.zeros_like(slopes), weights)
        unknown = torch.full((count,), -math.inf)
        return Subdomains(none, choice, unknown, torch.arange(count), torch.zeros((count, 0), dtype=torch.int64))

    def _examine(self, fresh: Subdomains) -> None:
        """Bounds subdomains; keeps what stays open, decides what cannot be split."""
        root, effort = self._root, self._effort
        found = bound(root, fresh.decisions, fresh.goal, fresh.choice, effort.rounds)
        self._examined += len(fresh)
        if len(found.closed):
            self._closed = min(self._closed, float(found.closed.min()))
        if not len(found.open):
            return
        decisions, goal = fresh.decisions[found.open], fresh.goal[found.open]
        columns, corner = candidates(root, decisions, goal, found.choice, effort.candidates)
        worst = found.lower.argsort()[: effort.descents]
        self._point = points.first_unsafe(root, corner, goal)
        if self._point is None and effort.descents:
            self._point = points.descend(root, corner[worst], goal[worst], effort.steps)
        still = Subdomains(decisions, found.choice, found.lower, goal, columns)
        splittable = columns[:, 0] != NOT_SPLIT if columns.shape[1] else torch.zeros(len(goal), dtype=torch.bool)
        self._pool.add(still[splittable])
        for leaf in (~splittable).nonzero().flatten().tolist():
            if self._point is None and time.perf_counter() < self._deadline:
                self._decide(still[leaf : leaf + 1])
            else:
                self._stuck = min(self._stuck, float(still.lower[leaf]))

    def _decide(self, leaf: Subdomains) -> None:
        solved = leaves.solve(self._root, leaf)
        if solved.lower > 0:
            self._closed = min(self._closed, solved.lower)
            return
        self._stuck = min(self._stuck, solved.lower)
        self._point = points.first_unsafe(self._root, solved.point[None].clamp(*self._root.outer), leaf.goal)
