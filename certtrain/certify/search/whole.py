"""One question about one box, from its first bounds to the end of the search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from certtrain.bounds import Box
from certtrain.bounds.relaxation.alpha_crown import AlphaCrown
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.certify.arithmetic import FLOAT64, NOTHING, Arithmetic
from certtrain.certify.search.enveloping import Enveloping
from certtrain.certify.search.goalwise import Goalwise
from certtrain.certify.search.inputs import Halving
from certtrain.certify.search.narrowing import Narrowing
from certtrain.certify.search.relaxed import Goals
from certtrain.certify.search.root import Root
from certtrain.certify.search.search import Effort, Outcome
from certtrain.deadline import OutOfTime, until
from certtrain.errors import ConfigError
from certtrain.networks import Graph, Params

# What is split: neurons by their sign, inputs in the middle, or inputs where there are at most FEW that are not fixed.
SPLITTINGS = ("auto", "neurons", "inputs")
FEW = 10


@dataclass(frozen=True)
class BranchAndBound:
    """How a question is decided.

    Attributes:
        relaxation: Gives the pre-activation bounds of the whole box where neurons are split.
        effort: Of the search over neurons.
        memory_mb: MiB that open subdomains may take, what narrowed boxes keep, and envelopes.
        splitting: What is split: "neurons", "inputs", or "auto": inputs where at most ten have a width.
        narrowing: How boxes are narrowed to where a goal could be met, where neurons are split.
        enveloping: How envelopes are fitted to a goal, in place of upper lines, where neurons are split.

    Raises:
        ConfigError: If there is no such splitting.
    """

    relaxation: AlphaCrown = AlphaCrown(iterations=10, search="single")  # noqa: RUF009  (frozen)
    effort: Effort = Effort()  # noqa: RUF009  (frozen)
    memory_mb: int = 1024
    splitting: str = "auto"
    narrowing: Narrowing = Narrowing()  # noqa: RUF009  (frozen)
    enveloping: Enveloping = Enveloping()  # noqa: RUF009  (frozen)

    def __post_init__(self) -> None:
        if self.splitting not in SPLITTINGS:
            raise ConfigError(f"splitting must be one of {', '.join(SPLITTINGS)}, got {self.splitting!r}")

    def decide(
        self,
        graph: Graph,
        values: Mapping[torch.dtype, Params],
        box: Box,
        goals: Goals,
        deadline: float = math.inf,
        arithmetic: Arithmetic = FLOAT64,
    ) -> Outcome:
        """Refutes every goal on a box, or finds a point that meets one.

        Args:
            graph: The network.
            values: float32 and float64 -> parameters and buffers.
            box: Of one input, float64.
            goals: float64.
            deadline: A moment of `time.perf_counter()`, soon after which this returns.
            arithmetic: In which proofs are computed.

        Raises:
            UnsupportedOperation: If an operation has no rule.
        """
        halves = self._halves(box)
        relaxation = DeepPoly() if halves else self.relaxation
        with torch.no_grad():
            try:
                with until(deadline):
                    known = arithmetic.known(relaxation, graph, values[torch.float64], box)
            except OutOfTime:
                return Outcome("time", -math.inf, None, 0)
            if not all(bool(z.lower.isfinite().all() and z.upper.isfinite().all()) for z in known.hidden.values()):
                return Outcome("exhausted", math.nan, None, 0)
            if not known.holds:
                return Outcome("exhausted", NOTHING, None, 0)
            root = Root.of(graph, values, box, known.hidden, goals, known.rounding)
            if halves:
                return Halving(root, deadline, memory=self.memory_mb << 20).run()
            ways = self.narrowing, self.enveloping
            return Goalwise(root, deadline, self.effort, self.memory_mb << 20, *ways).run()

    def _halves(self, box: Box) -> bool:
        """Whether boxes of inputs are halved."""
        if self.splitting == "auto":
            return int((box.upper > box.lower).sum()) <= FEW
        return self.splitting == "inputs"
