"""Branch and bound over boxes of inputs: where inputs are few, halving a box sharpens everything behind it.

Every box is bounded anew, all pre-activations by back-substitution in float64, which is what closes it. An open one is
halved along the input that is most to blame for what the worst goal's bound loses (`looseness`). Boxes shrink towards
points, so that the search comes to an end whatever the activations, except where a goal is just met.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certtrain.activations import Interval
from certtrain.bounds import Box
from certtrain.bounds.analysis import Analysing, Given
from certtrain.bounds.optimised.passes import Start, backward
from certtrain.bounds.optimised.region import Region
from certtrain.bounds.relaxation.deeppoly import DeepPoly
from certtrain.certify.search import points
from certtrain.certify.search.looseness import looseness
from certtrain.certify.search.pool import Parts, Pool
from certtrain.certify.search.root import Root
from certtrain.certify.search.search import Ending, Outcome, lowest
from certtrain.deadline import OutOfTime, until
from certtrain.networks import Graph

# A batch takes this many products of elements of the network: rows of each neuron over what lies before it.
PRODUCTS = 1 << 29
# Of the score: what a half gains whose other half keeps the corner.
LINEAR = 0.05
# Parts of the width of the whole box below which nothing is halved.
NARROWEST = 2.0**-40


@dataclass(frozen=True)
class HalvingEffort:
    """How much is done where.

    Attributes:
        batch: Boxes that are bounded at a time, at most; fewer where networks are large.
        descents: Corners, of the lowest bounds, from which a counterexample is searched after each batch.
        steps: Of each such search.
    """

    batch: int = 1024
    descents: int = 8
    steps: int = 10


@dataclass(frozen=True)
class Boxes(Parts):
    """Parts of one box.

    Attributes:
        low: Lower ends, [count, inputs], float64.
        high: Upper ends.
        left: Which goals are not closed, [count, goals].
        lower: Bounds of the worst of these, [count].
        split: The input to halve, [count].
    """

    low: Tensor
    high: Tensor
    left: Tensor
    lower: Tensor
    split: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Boxes:
        """The same function of all of them."""
        return Boxes(*(function(x) for x in (self.low, self.high, self.left, self.lower, self.split)))

    def halves(self) -> Boxes:
        """Both halves of each."""
        low, high, at = self.low.clone(), self.high.clone(), self.split[:, None]
        middle = (low.gather(1, at) + high.gather(1, at)) / 2
        below = replace(self, high=high.scatter(1, at, middle))
        return below.joined([replace(self, low=low.scatter(1, at, middle))])


@dataclass(frozen=True)
class Opened:
    """What is known of boxes that are not closed.

    Attributes:
        boxes: With the inputs to halve.
        goal: The worst goal of each.
        corner: Where its bound is attained, [count, *input_shape].
        divisible: Whether there is an input that can be halved.
    """

    boxes: Boxes
    goal: Tensor
    corner: Tensor
    divisible: Tensor


class Halving:
    """Halves boxes until everything is closed, a counterexample is met, or time or memory is over.

    Args:
        root: What is searched.
        deadline: A moment of `time.perf_counter()`.
        effort: How.
        memory: Bytes that open boxes may take.
        relaxation: Bounds boxes.
    """

    def __init__(
        self,
        root: Root,
        deadline: float = math.inf,
        effort: HalvingEffort = HalvingEffort(),
        memory: int = 1 << 30,
        relaxation: Analysing = DeepPoly(),  # noqa: B008  (frozen)
    ) -> None:
        self._root, self._deadline, self._effort, self._memory = root, deadline, effort, memory
        self._relaxation = relaxation
        self._batch = boxes_at_once(root.graph, effort.batch)
        self._pool: Pool[Boxes] = Pool()
        self._closed = self._stuck = math.inf
        self._lost = False
        self._examined = 0
        self._point: Tensor | None = None
        self._width = (root.outer[1] - root.outer[0]).flatten()

    def run(self) -> Outcome:
        """The answer."""
        fresh = self._whole()
        while True:
            try:
                with until(self._deadline):
                    self._examine(fresh)
            except OutOfTime:
                self._stuck = min(self._stuck, float(fresh.lower.min()))
                return self._outcome("time")
            if self._point is not None:
                return self._outcome("counterexample")
            if self._lost or math.isnan(self._stuck) or not len(self._pool):
                return self._outcome("closed" if self._stuck == math.inf else "exhausted")
            if time.perf_counter() > self._deadline:
                return self._outcome("time")
            if self._pool.nbytes > self._memory:
                return self._outcome("memory")
            fresh = self._pool.take(max(1, self._batch // 2)).halves()

    def _outcome(self, ending: Ending) -> Outcome:
        lower = lowest(self._closed, self._stuck, self._pool.worst)
        return Outcome(ending, lower, self._point, self._examined)

    def _whole(self) -> Boxes:
        low, high = (end.flatten(1) for end in self._root.outer)
        left = torch.ones((1, len(self._root.double.goals)), dtype=torch.bool)
        return Boxes(low, high, left, torch.full((1,), -math.inf).double(), torch.zeros(1, dtype=torch.int64))

    def _examine(self, fresh: Boxes) -> None:
        """Bounds boxes; keeps those that stay open."""
        opened = self._bound(fresh)
        self._examined += len(fresh)
        if opened is None:
            return
        self._point = self._attacked(opened)
        if self._point is None:
            lost = points.lost_to_rounding(self._root, opened.corner, opened.goal)
            if lost is not None:
                self._lost, self._stuck = True, lowest(self._stuck, lost)
        stuck = ~opened.divisible
        if bool(stuck.any()):
            self._stuck = min(self._stuck, float(opened.boxes.lower[stuck].min()))
        self._pool.add(opened.boxes[opened.divisible])

    def _bound(self, fresh: Boxes) -> Opened | None:
        goals, box = self._root.double.goals, self._box(fresh)
        spec = goals.forms.flatten(0, 1)[None].expand(len(box), -1, -1)
        values = dict(self._root.values[torch.float64])
        # What the whole box allows of rounding errors, its parts do.
        slack = {i: x.expand(len(box), *x.shape[1:]) for i, x in self._root.slack.items()}
        found = self._relaxation.analyse(self._root.graph, values, box, spec, "lower", given=Given(slack=slack))
        rows = found.bounds.lower.unflatten(1, goals.constants.shape) - self._root.charged.forms + goals.constants
        if bool((rows.isnan() | (rows == math.inf)).any()):
            # However small a box is, it stays no number: the search ends. (Minus infinity is one that claims nothing.)
            self._stuck = math.nan
            return None
        # [boxes, goals]: the best form of each.
        each, form = rows.max(2)
        left = fresh.left & ~(each > 0)
        if bool((closed := fresh.left & ~left).any()):
            self._closed = min(self._closed, float(each[closed].min()))
        keep = left.any(1).nonzero().flatten()
        if not len(keep):
            return None
        lower, goal = each[keep].where(left[keep], math.inf).min(1)
        hidden = {i: z.map(lambda x: x[keep]) for i, z in found.hidden.items()}
        return self._opened(replace(fresh[keep], left=left[keep], lower=lower), goal, form[keep, goal], hidden)

    def _opened(self, boxes: Boxes, goal: Tensor, form: Tensor, hidden: dict[int, Interval]) -> Opened:
        """Chooses inputs to halve, by what the bound of the worst goal loses."""
        root = self._root
        goals, graph = root.double.goals, root.graph
        region = Region.of(graph, root.values[torch.float64], self._box(boxes), hidden)
        start = Start(len(graph.ops) - 1, goals.forms[goal, form], goals.constants[goal, form])
        found = backward(region, start)
        width = boxes.high - boxes.low
        relative = width / self._width.where(self._width > 0, 1.0)
        score = looseness(region, hidden, found) + LINEAR * found.form.flatten(1).abs() * width
        middle = (boxes.low + boxes.high) / 2
        # Of two numbers that are neighbours in float64, one would be the middle, and one half the whole again.
        divisible = (relative > NARROWEST) & (boxes.low < middle) & (middle < boxes.high)
        split = score.where(divisible, -1.0).nan_to_num(0.0).argmax(1)
        return Opened(replace(boxes, split=split), goal, found.corner, divisible.any(1))

    def _attacked(self, opened: Opened) -> Tensor | None:
        """A counterexample at a corner, at a centre, or downhill of the worst corners."""
        root, effort, goal = self._root, self._effort, opened.goal
        center = ((opened.boxes.low + opened.boxes.high) / 2).reshape(-1, *root.input_shape)
        corner = opened.corner.float()
        hit = points.deepest_unsafe(root, torch.cat([corner, center.float()]), goal.repeat(2))
        if hit is None and effort.descents:
            worst = opened.boxes.lower.argsort()[: effort.descents]
            hit = points.descend(root, corner[worst].clamp(*root.inner), goal[worst], effort.steps)
        return hit

    def _box(self, boxes: Boxes) -> Box:
        shape = self._root.input_shape
        return Box(boxes.low.reshape(-1, *shape), boxes.high.reshape(-1, *shape))


def boxes_at_once(graph: Graph, most: int) -> int:
    """How many boxes to bound in one call: what a call costs grows like the square of the network's size."""
    return max(2, min(most, PRODUCTS // sum(op.size for op in graph.ops) ** 2))
