"""A box that is narrowed, split at one neuron, and narrowed again on both sides, until nothing is left of it.

Where the outputs say much about a layer's neurons, one sign more decides many others, and a handful of such nodes does
what tens of thousands of subdomains with their root's bounds do not. Elsewhere it does nothing: then a search has the
time.
"""

from __future__ import annotations

import math
import time

import torch

from certtrain.certify.search.branching import choose
from certtrain.certify.search.narrowing import Narrowed, Narrowing
from certtrain.certify.search.search import BARELY, Effort, Outcome, Search

# Subdomains that are examined at each node, before it is split.
PARTS = 4
# Nodes before a tree is judged.
NODES = 16


class Tree:
    """Depth first: few nodes are open at a time.

    Args:
        start: The whole box, narrowed.
        narrowing: How nodes are.
        effort: See `Search`.
        deadline: A moment of `time.perf_counter()`.
        memory: See `Search`.
    """

    def __init__(self, start: Narrowed, narrowing: Narrowing, effort: Effort, deadline: float, memory: int) -> None:
        self._narrowing, self._effort, self._deadline, self._memory = narrowing, effort, deadline, memory
        self._open = [(start, 0)]
        self.examined = 0
        self._nodes, self._seconds = 0, 0.0
        # Share of the box, as if every split halved it.
        self._closed = 0.0

    @property
    def seconds_left(self) -> float | None:
        """What it needs to its end, if all of the box takes as long as what is closed; None after a few nodes only."""
        if self._nodes < NODES:
            return None
        return self._seconds * (1 / self._closed - 1) if self._closed else math.inf

    def run(self, pause: float, kept: int) -> Outcome | None:
        """The answer, "exhausted" where this is not the way to one; None where another call goes on.

        Args:
            pause: A moment of `time.perf_counter()`, after which it takes no node on.
            kept: Bytes of choices that it may keep between nodes: beyond that, nodes that are far away begin anew.

        Raises:
            OutOfTime: If the deadline passes.
        """
        while self._open:
            self._forget_beyond(kept)
            if (start := time.perf_counter()) > pause:
                return None
            box, depth = self._open[-1]
            narrowed = self._narrowing.narrow(box)
            self.examined += 1
            found = None if narrowed is None else self._searched(narrowed)
            if isinstance(found, Outcome):
                return found
            self._open.pop()
            self._nodes, self._seconds = self._nodes + 1, self._seconds + time.perf_counter() - start
            if narrowed is None or found is None:
                self._closed += 2.0**-depth
            else:
                self._open += [(half, depth + 1) for half in narrowed.halves(found)]
        return Outcome("closed", BARELY, None, self.examined)

    def _forget_beyond(self, kept: int) -> None:
        """Forgets what rows chose at the nodes whose turn is last; the next one keeps it, with its other half."""
        seen = set()
        for place in reversed(range(len(self._open))):
            box, depth = self._open[place]
            # Halves of one box share it.
            layers = id(box.layers)
            kept -= 0 if layers in seen else box.nbytes
            seen.add(layers)
            if kept < 0 and len(seen) > 1:
                self._open[place] = box.without_choices(), depth

    def _searched(self, box: Narrowed) -> Outcome | int | None:
        """An ending that is one for all; else the neuron to split, or None where nothing is left."""
        search = Search(box.root, self._deadline, self._effort, self._memory, torch.tensor([box.goal]))
        found = search.run(most=PARTS)
        self.examined += search.examined
        if found is not None and found.ending == "closed":
            return None
        if found is not None and found.ending != "memory":
            return found
        assert search.begun is not None, "what is left open was open at first"
        return int(choose(box.root, search.begun, self._effort.probing(1), self._effort.candidates).column)
